from fourfold_ops.tracking.run import metric_name


def test_metric_names_are_valid_in_mlflow():
    assert metric_name("rgb->depth/abs_rel") == "rgb_to_depth/abs_rel"
    assert metric_name("clip/R@1") == "clip/R_1"

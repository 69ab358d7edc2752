from fourfold_ops.tracking.run import metric_name


def test_names_of_figures_become_what_mlflow_allows():
    assert metric_name("rgb->depth/abs_rel") == "rgb_to_depth/abs_rel"
    assert metric_name("clip/R@1") == "clip/R_1"

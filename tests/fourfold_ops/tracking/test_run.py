from concurrent.futures import ThreadPoolExecutor

from fourfold_ops.tracking.run import ActiveRun, active_run, metric_name, set_active_run


def test_metric_names_are_valid_in_mlflow():
    assert metric_name("rgb->depth/abs_rel") == "rgb_to_depth/abs_rel"
    assert metric_name("clip/R@1") == "clip/R_1"


def test_each_thread_has_its_own_active_run():
    """Kedro's ThreadRunner runs nodes of different stages at the same time."""

    def work(name):
        set_active_run(ActiveRun(run_id=name))
        return active_run().run_id

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        assert (first.submit(work, "a").result(), second.submit(work, "b").result()) == ("a", "b")
        assert first.submit(lambda: active_run().run_id).result() == "a"
    assert active_run().run_id == ""

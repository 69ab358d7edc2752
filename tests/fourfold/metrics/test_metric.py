"""Finding the metric of a key of metrics.json."""

from fourfold.metrics.metric import Metric, find_metric

METRICS = (Metric("recall_at_k", "R@{k}", "among the {k} nearest"), Metric("abs_rel", "AbsRel", "error", lower_is_better=True))


def test_a_number_in_the_key_becomes_part_of_the_title():
    found = find_metric(METRICS, "recall_at_10")
    assert (found.name, found.title, found.description) == ("recall_at_10", "R@10", "among the 10 nearest")
    assert not METRICS[0].describes("image_recall_at_10")


def test_a_known_metric_is_returned_and_an_unknown_one_named_after_its_key():
    assert find_metric(METRICS, "abs_rel") is METRICS[1]
    assert find_metric(METRICS, "new_metric") == Metric("new_metric", "new metric")

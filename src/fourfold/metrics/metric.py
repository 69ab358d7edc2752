"""What a metric is called and how to read it: used by evaluation tasks, transfer tasks, benchmarks and the report."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

TRAILING_K = re.compile(r"_at_(\d+)$")


@dataclass(frozen=True)
class Metric:
    """Name and meaning of one number in the tables.

    A name that ends in `_at_k` describes all of `_at_1`, `_at_10`, ...; `{k}` in its title and description becomes the number.
    """

    name: str  # the key in metrics.json, e.g. "abs_rel"
    title: str  # for tables, e.g. "AbsRel"
    description: str = ""  # one line, with the unit
    lower_is_better: bool = False

    def describes(self, key: str) -> bool:
        """Return whether this is the metric of a key of metrics.json."""
        return self.name in (key, TRAILING_K.sub("_at_k", key))


def find_metric(metrics: Iterable[Metric], key: str) -> Metric:
    """Return the metric that describes a key of metrics.json; a plain one, named after the key, when none does."""
    metric = next((metric for metric in metrics if metric.describes(key)), None)
    if metric is None:
        return Metric(key, key.replace("_", " "))
    number = TRAILING_K.search(key)
    if metric.name == key or number is None:
        return metric
    title, description = (text.format(k=number[1]) for text in (metric.title, metric.description))
    return replace(metric, name=key, title=title, description=description)

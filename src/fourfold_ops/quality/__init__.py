"""Great Expectations behind the catalog's `validator:` key: data is checked on every boundary between stages."""

from fourfold_ops.quality.validator import GreatExpectations, metric_rows

__all__ = ["GreatExpectations", "metric_rows"]

"""Great Expectations behind the catalog's `validator:` key: data is checked on every boundary between stages."""

from fourfold_ops.quality.validator import GreatExpectations

__all__ = ["GreatExpectations"]

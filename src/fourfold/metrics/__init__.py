"""Metrics: what each is called, how it is computed, and its confidence interval."""

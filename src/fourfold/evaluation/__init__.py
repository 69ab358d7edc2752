"""How good it is: metrics with confidence intervals, out-of-the-box evaluation, zero-shot, and the report."""

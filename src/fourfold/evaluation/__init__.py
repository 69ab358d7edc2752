"""Evaluation of a pretrained model: prediction tasks with confidence intervals, public benchmarks, and the report."""

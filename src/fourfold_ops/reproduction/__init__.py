"""Repeats a past run in a separate checkout, and compares every result, metric and package with its record."""

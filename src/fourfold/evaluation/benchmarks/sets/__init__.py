"""One module per family of public data sets: readers of their official layouts, and the benchmarks on them."""

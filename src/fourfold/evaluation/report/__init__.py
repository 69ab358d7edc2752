"""The report of a run: an HTML page, a gallery, contact sheets of generated values, and what draws them."""

"""The label page: how certain the labels are, the least certain ones, and what is missing. Start at `page.label_page`."""

"""The page of `kedro demo`: try the model in a browser. `values.py` turns values into what `page/` shows."""

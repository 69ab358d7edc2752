"""`kedro serve`: a registered model behind HTTP.

The server process (`app.py`) only reads and writes HTTP. The model runs in a child process (`worker.py`), which imports the
code stored with its version: the server can move to a version of other code, and survives a crash of the model.
"""

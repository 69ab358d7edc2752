"""The 4M transformer: its input, layers, losses and initial weights. `fourm.py` is the place to start reading."""

"""One training loop for everything that is trained here, and the pretraining of 4M on top of it."""

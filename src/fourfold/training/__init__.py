"""Training shared by all networks: the loop, optimizers, checkpoints, precision and several processes."""

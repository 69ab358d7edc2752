"""Pretraining of 4M: data loading, mixtures of data sets, settings, and the training itself."""

"""Accuracy, parity, latency and their statistics: the same code for every artefact."""

"""Batches to train and evaluate on: from memory, or from files by worker processes."""

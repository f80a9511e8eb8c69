"""The checks of the split, one a module."""

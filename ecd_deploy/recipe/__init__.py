"""The recipe: every choice of a run, one section a module."""

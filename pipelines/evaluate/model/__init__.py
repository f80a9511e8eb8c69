"""A model of any origin: its file, and how an image becomes its input."""

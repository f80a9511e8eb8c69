"""One optimiser step: its work, its memory, and how a GPU gets it as a whole."""

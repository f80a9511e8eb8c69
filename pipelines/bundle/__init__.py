"""One archive for a device without a network."""

"""A step's operations as a list, in which chains of small ones are replaced by single launches."""

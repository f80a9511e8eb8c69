"""The dynamic additive convolution and its kin."""

"""The dynamic convolution by kernels of our own for NVIDIA GPUs, in place of those of torch."""

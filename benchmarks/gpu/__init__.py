"""What is measured on a GPU, with one prepared command: `python -m benchmarks.gpu`."""

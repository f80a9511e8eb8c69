"""What the project measures about itself, how, and against whom; `python -m benchmarks` prints the table."""

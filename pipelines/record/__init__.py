"""What the steps of a run leave for each other, and the directory that holds it."""

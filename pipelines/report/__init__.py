"""Step 7: the pages about a run, made from the results of the other steps."""

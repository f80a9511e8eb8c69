"""The steps of a run, each a function with typed input and output, and the run that calls them."""

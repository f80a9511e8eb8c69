"""Where images come from, one source a file, behind `contract.Source`."""

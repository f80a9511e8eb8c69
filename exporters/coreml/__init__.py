"""The format of Core ML, which Apple's systems run."""

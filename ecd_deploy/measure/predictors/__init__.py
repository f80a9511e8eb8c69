"""From images to logits: whatever runs the model, and whoever wrote it."""

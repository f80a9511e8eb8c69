"""Checkpoints: what they hold, how they are kept, and how a training is resumed from one."""

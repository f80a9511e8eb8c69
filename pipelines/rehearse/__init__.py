"""A run in small before its first step: what would fail after hours of training fails in seconds."""

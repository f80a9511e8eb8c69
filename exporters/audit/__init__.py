"""Traces what was written, tensor by tensor, to the student, whatever the format."""

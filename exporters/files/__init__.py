"""What a written file says and holds, read from its bytes: tensors, metadata, traces of its machine."""

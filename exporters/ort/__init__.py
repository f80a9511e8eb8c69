"""onnxruntime's own format."""

"""ONNX: fp32, of a fixed batch, in float16 and in INT8."""

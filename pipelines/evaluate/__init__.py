"""Any ONNX image classifier on labelled images: accuracy by image, with onnxruntime alone."""

"""The format of LiteRT, once TensorFlow Lite."""

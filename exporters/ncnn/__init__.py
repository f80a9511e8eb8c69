"""The format of ncnn, the runtime for phones and boards."""

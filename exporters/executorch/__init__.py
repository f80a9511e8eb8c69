"""ExecuTorch's programs."""

"""`python -m benchmarks.gpu.deterministic [--warn] ARGUMENTS`: `ecd-deploy ARGUMENTS` with deterministic algorithms.

An operation that has none ends the command with its name, or with `--warn` is used as it is.
"""

from __future__ import annotations

import os
import sys

import torch

from ecd_deploy.cli import main

WARN = "--warn"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    # cuBLAS reads it when its first handle is made
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=WARN in arguments)
    main([argument for argument in arguments if argument != WARN])

"""What an NVIDIA GPU may do with float32: round it to TF32, and choose a convolution's algorithm by trying them out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ecd_deploy.recipe.train import TrainConfig


@contextmanager
def precision_of(config: TrainConfig) -> Iterator[None]:
    """Set torch's switches as a recipe says while the context lasts; without such a GPU they have no effect.

    TF32 has ten bits of mantissa for the 23 of float32: <https://docs.pytorch.org/docs/stable/notes/cuda.html>
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark
    convolutions.allow_tf32, products.allow_tf32 = config.tf32 != "never", config.tf32 == "always"
    convolutions.benchmark = config.cudnn_benchmark
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark = before

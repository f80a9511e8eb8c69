"""Where Triton can be used, and how exactly it computes there."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Of a launch's result, relative to its norm."""


def find_lack(device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps Triton from tensors of this kind, None if nothing does; its interpreter, for tests, takes all."""
    if not _is_installed():
        return "the package triton is not installed"
    if is_interpreted():
        return None
    if device.type != "cuda" or not torch.cuda.is_available():
        return f"Triton needs a GPU, and the features are on '{device.type}'"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU has no tensor cores for TF32 and bfloat16 (compute capability below 8.0)"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"{dtype} is none of float32, bfloat16, float16"
    return None


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


def is_interpreted() -> bool:
    """Whether Triton's interpreter does on the CPU what a GPU would."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def sum_dtype(tensor: Tensor) -> Any:
    """Triton's type of sums: float32, of float64 float64."""
    import triton.language as tl

    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


def arithmetic(tensor: Tensor) -> dict[str, Any]:
    """How a product of tensors of this kind is computed, by the names of the kernels' parameters."""
    import triton.language as tl

    operands = {torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    operand = operands.get(tensor.dtype, tl.float32)
    if is_interpreted() and operand == tl.bfloat16:
        operand = tl.float32  # NumPy has no bfloat16
    return {
        "SUM": sum_dtype(tensor),
        "OPERAND": operand,
        "PRECISION": "tf32" if rounds_to_tf32(tensor.dtype) else "ieee",
    }


def rounds_to_tf32(dtype: torch.dtype) -> bool:
    """Whether factors of a product are rounded to the ten bits of TF32's mantissa: as torch's convolutions do it."""
    return torch.backends.cudnn.allow_tf32 and dtype == torch.float32


FEWEST = 16
"""Rows and columns that a product of tensor cores takes."""


def block_for(size: int, most: int | None = None) -> int:
    """The power of two that is to hold a size, within the bounds."""
    whole = max(FEWEST, 1 << (size - 1).bit_length())
    return whole if most is None else min(whole, most)


def count_blocks(size: int, block: int) -> int:
    """Blocks that hold a size."""
    return -(-size // block)

"""Interfaces of torch.onnx that are private; each function names the one that it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def registry_kept() -> Iterator[None]:
    """Let each export meanwhile take the table of operators that the first one built: `ONNXRegistry.from_torchlib`.

    Every export builds it anew otherwise, from the source of some 500 functions, which takes longer than the student.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    builder = vars(ONNXRegistry)["from_torchlib"]
    ONNXRegistry.from_torchlib = staticmethod(_kept(builder.__get__(None, ONNXRegistry)))  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = builder


@cache
def _kept(builder: Callable[..., Any]) -> Callable[..., Any]:
    return cache(builder)

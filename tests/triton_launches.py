"""Triton's launches on a machine without a GPU: interpreted by Triton itself, or each by torch's own operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch

from ecd_deploy.distill.convolution import triton
from ecd_deploy.distill.convolution.triton import check as triton_check
from ecd_deploy.distill.convolution.triton import mixing_operators as triton_mixing_operators
from ecd_deploy.distill.convolution.triton import operators as triton_operators
from ecd_deploy.distill.convolution.triton import references as triton_references
from ecd_deploy.distill.convolution.triton import support as triton_support
from ecd_deploy.training import fused
from ecd_deploy.training.fused import operators as fused_operators

_LAUNCHES = {
    triton_operators: ("convolve_samples", "differentiate_features", "differentiate_weights"),
    triton_mixing_operators: ("mix", "differentiate_mixing", "differentiate_route"),
}
_REFERENCES: dict[Any, Callable[..., Any]] = {
    **{getattr(room, name): getattr(triton_references, name) for room, names in _LAUNCHES.items() for name in names},
    fused_operators.normalise: fused_operators.normalise_by_torch,
    fused_operators.differentiate_rectified: fused_operators.differentiate_by_torch,
}
_KERNELS = {triton: ("products", "gradients", "mixing"), fused: ("norms",)}


@contextmanager
def interpreting() -> Iterator[None]:
    """Let Triton interpret its kernels, also where it was imported to compile them, which is decided at the import."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, for which the interpreter would leave Triton of no use in this process")
    interpreter: Any = pytest.importorskip("triton.runtime.interpreter", reason="needs triton, which is not installed")
    if metadata.version("triton").startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("the interpreter of Triton 3.6 converts arrays as NumPy 2.4 does no more")
    import triton.language as tl
    from triton.runtime.jit import JITFunction

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        for name, function in list(vars(tl.standard).items()):
            if isinstance(function, JITFunction):
                patch.setattr(tl.standard, name, interpreter.InterpretedFunction(function.fn))
                if hasattr(tl, name):
                    patch.setattr(tl, name, getattr(tl.standard, name))
        _forget_kernels()
        try:
            yield
        finally:
            _forget_kernels()


@contextmanager
def standing_in() -> Iterator[None]:
    """Let torch's operations do on the CPU what each launch does, so that one operator stands for one launch."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for operator in _REFERENCES:
            stack.enter_context(operator.set_kernel_enabled("cpu", enabled=True))
        patch.setattr(triton_support, "find_lack", lambda _device, _dtype: None)
        stack.callback(forget_checks)
        forget_checks()
        yield


def _owned(reference: Any) -> Any:
    """Results that lie as a launch leaves them."""

    def compute(*arguments: Any) -> Any:
        found = reference(*arguments)
        if isinstance(found, torch.Tensor):
            return found.clone(memory_format=torch.contiguous_format)
        return type(found)(tensor.clone(memory_format=torch.contiguous_format) for tensor in found)

    return compute


def forget_checks() -> None:
    """Let what was found of a shape be found anew, and be said again."""
    triton_check._find_fault.cache_clear()
    triton_check._unused.clear()


def _forget_kernels() -> None:
    for package, names in _KERNELS.items():
        for name in names:
            sys.modules.pop(f"{package.__name__}.{name}", None)
            vars(package).pop(name, None)
    forget_checks()


for _operator, _reference in _REFERENCES.items():
    _operator.register_kernel("cpu")(_owned(_reference))
    _operator._disabled_kernel.add("cpu")

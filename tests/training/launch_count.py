"""What a step launches on a GPU, and the bytes that its launches read and write, counted on a CPU.

An operator of torch counts as one launch, as long as it computes: not one that gives a view, or memory without values.
The gradients of a convolution count each, and the operators on lists of tensors by the lists that fit a launch. Of the
bytes, each launch reads its tensors and writes its results, whatever a cache may hold.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ecd_deploy.data import Batch
from ecd_deploy.distill import additive
from ecd_deploy.distill.batch_norm import TeacherBatchNorm2d
from ecd_deploy.training.fused.fusing import lightened
from ecd_deploy.training.steps import counters
from tests.training.repeated_steps import make_work
from tests.triton_launches import standing_in

_WITHOUT_VALUES = ("empty", "new_empty", "empty_like", "empty_strided", "set_", "_record_function_enter_new")
_LISTS, _BLOCKS, _BLOCK = 48, 320, 65536  # tensors, and blocks of elements, of a launch: aten's MultiTensorApply.cuh


@dataclass
class Launches(TorchDispatchMode):
    """Counts while the context lasts.

    Attributes:
        counts: launches by operator.
        bytes: that they read and write.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def total(self) -> int:
        """Launches."""
        return sum(self.counts.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in _WITHOUT_VALUES or name.startswith(("_record_function", "detach")):
            return result
        self.counts[name] += _launches(name, args)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        distinct = {(tensor.data_ptr(), tensor.numel()): tensor.nbytes for tensor in tensors}
        self.bytes += sum(distinct.values())
        return result


def _launches(name: str, args: tuple[Any, ...]) -> int:
    if name == "convolution_backward":
        return sum(args[-1][:2])
    if name.startswith(("_foreach", "_fused")):
        tensors = [tensor for tensor in args[0] if isinstance(tensor, Tensor)]
        blocks = sum(math.ceil(tensor.numel() / _BLOCK) for tensor in tensors)
        return max(math.ceil(len(tensors) / _LISTS), math.ceil(blocks / _BLOCKS))
    return 1


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Let modules take the ways that they take on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TeacherBatchNorm2d, "_is_quick", lambda _self, _features: False)
        patch.setattr(additive, "_is_for_cudnn", lambda _student: True)
        patch.setattr(counters, "_is_worthwhile", lambda _model: True)
        yield


METHODS: dict[str, dict[str, Any]] = {
    "student": {"name": "plain"},
    "ecd": {"name": "ecd", "kernels": 16},
    "ecd by triton": {"name": "ecd", "kernels": 16, "backend": "triton"},
}
_SIDE = 32


def count(method: str, images: int, *, fused: bool) -> Launches:
    """Launches of a step of ResNet-20 after the first, which checks the launches of each shape."""
    work = make_work(METHODS[method], student="resnet20", side=_SIDE)
    batch = Batch(torch.randn(images, 3, _SIDE, _SIDE), torch.arange(images), torch.arange(images), images)
    with as_on_cuda(), standing_in():
        work.losses.begin_step(1, images)
        work(batch)
        step: Callable[[], None] = functools.partial(work, batch)
        if fused:
            step = lightened(step, work.changed(), work.optimizer.zero_grad).run
        with (found := Launches()):
            step()
    return found

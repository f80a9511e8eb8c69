"""The batch counters of batch norms, which on a GPU would each be a launch of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from ecd_deploy.compat.torch import add_numbers, own_buffers
from ecd_deploy.distill.batch_norm import TeacherBatchNorm2d

_NAME = "num_batches_tracked"
_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, TeacherBatchNorm2d)  # whose forward goes on without a counter


@contextmanager
def counted_at_once(model: nn.Module) -> Iterator[None]:
    """Let batch norms count the forwards within the context at its end, all by one launch; on a CPU nothing changes.

    The counter of a norm with `momentum` says nothing but how many batches it has seen, so it can wait. Each gets as
    many as its norm was called, which a layer that is left out at random is not.
    """
    if not _is_worthwhile(model):
        yield
        return
    calls: Counter[nn.Module] = Counter()
    counters = dict(_counters(model))

    def called(module: nn.Module, _inputs: object) -> None:
        calls[module] += 1

    with ExitStack() as stack:
        for norm, counter in counters.items():
            stack.callback(norm.register_forward_pre_hook(called).remove)
            stack.callback(own_buffers(norm).__setitem__, _NAME, counter)
            own_buffers(norm)[_NAME] = None
        yield
    if calls:
        add_numbers([counters[norm] for norm in calls], list(calls.values()))


def _is_worthwhile(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cuda"


def _counters(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    for module in model.modules():
        counter = own_buffers(module).get(_NAME)
        if type(module) in _KNOWN and module.training and module.momentum is not None and counter is not None:
            yield module, counter

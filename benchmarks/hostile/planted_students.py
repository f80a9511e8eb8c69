"""Students with a fault each, one factory a fault; `students.py` copies this file into a temporary folder.

What must become of each stands there. It stands alone: a user's file is not of this package.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Norm = Callable[[int], nn.Module]
Factory = Callable[[int, int], nn.Module]


class Block(nn.Module):
    def __init__(self, channels: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class Net(nn.Module):
    """Stem, two blocks, something in between, a head, something behind it."""

    def __init__(
        self,
        classes: int,
        channels: int,
        middle: nn.Module | None = None,
        end: Callable[..., Any] | None = None,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8, norm), Block(8, norm))
        self.middle = middle or nn.Identity()
        self.head = nn.Linear(8, classes)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.middle(self.blocks(self.stem(x))).mean((2, 3)))
        return logits if self.end is None else self.end(logits)


def _middle(function: Callable[..., Any]) -> Factory:
    return lambda num_classes, in_channels: Net(num_classes, in_channels, Call(function))


def _end(function: Callable[..., Any]) -> Factory:
    return lambda num_classes, in_channels: Net(num_classes, in_channels, end=function)


def _changed(change: Callable[[Any], object]) -> Factory:
    def factory(num_classes: int, in_channels: int) -> nn.Module:
        student = Net(num_classes, in_channels)
        changed = change(student)
        return changed if isinstance(changed, nn.Module) else student

    return factory


sound = _changed(lambda student: None)


# Logits that depend on the batch.

batch_largest = _middle(lambda x: x / (x.amax(0, keepdim=True) + 1))
batch_softmax = _middle(lambda x: x * x.softmax(0))
batch_rolled = _middle(lambda x: x + x.roll(1, 0))
batch_running_sum = _middle(lambda x: x.cumsum(0))
batch_first_image = _middle(lambda x: x - x[:1])
batch_odd = _middle(lambda x: x * 2 if x.shape[0] % 2 else x)
batch_standardised = _middle(lambda x: F.layer_norm(x, x.shape))
batch_norm_by_hand = _middle(lambda x: F.batch_norm(x, None, None, training=True))
batch_sorted = _middle(lambda x: x + 0.1 * x.sort(0).values)
batch_logits = _end(lambda logits: logits - logits.mean(0))
batch_into_pixels = _middle(lambda x: x + x.flatten()[: x[0].numel()].view(x[0].shape))


def batch_attention(num_classes: int, in_channels: int) -> nn.Module:
    attention = nn.MultiheadAttention(8, 2, dropout=0.0)  # the batch stands where it expects the sequence

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(2).transpose(1, 2)
            return (rows + self.attention(rows, rows, rows)[0]).transpose(1, 2).view(x.shape)

    return Net(num_classes, in_channels, Attention())


def batch_norm_left_in_training(num_classes: int, in_channels: int) -> nn.Module:
    class Norm(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Self:
            return super().train(True)

    return Net(num_classes, in_channels, norm=Norm)


# Random, or with a state of its own.

random_noise = _middle(lambda x: x + 0.1 * torch.randn_like(x))
random_of_python = _middle(lambda x: x * random.uniform(0.5, 1.5))
random_of_numpy = _middle(lambda x: x * float(np.random.uniform(0.5, 1.5)))
random_dropped = _end(lambda logits: F.dropout(logits, 0.5, training=True))


def state_list(num_classes: int, in_channels: int) -> nn.Module:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            return x

    return Net(num_classes, in_channels, Remembering())


def state_average(num_classes: int, in_channels: int) -> nn.Module:
    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("average", torch.zeros(1, 8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            self.average.mul_(0.9).add_(x.detach().mean((0, 2, 3), keepdim=True), alpha=0.1)
            return x - self.average

    return Net(num_classes, in_channels, Averaging())


def state_registered_late(num_classes: int, in_channels: int) -> nn.Module:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "mask"):
                self.register_buffer("mask", torch.ones(x.shape[-1]))
            return x * self.mask

    return Net(num_classes, in_channels, Late())


# Parameters.

weights_lazy = _changed(lambda student: setattr(student, "stem", nn.LazyConv2d(8, 3, padding=1)))
weights_lazy_norm = _changed(lambda student: setattr(student.blocks[0], "norm1", nn.LazyBatchNorm2d()))
weights_half = _changed(lambda student: student.half())
weights_partly_half = _changed(lambda student: setattr(student, "head", student.head.to(torch.bfloat16)))
weights_double = _changed(lambda student: student.double())
weights_meta = _changed(lambda student: student.to("meta"))
weights_partly_frozen = _changed(lambda student: setattr(student, "stem", student.stem.requires_grad_(False)))
weights_frozen = _changed(lambda student: student.requires_grad_(False))
weights_none = lambda num_classes, in_channels: Call(lambda x: x.flatten(1)[:, :num_classes])  # noqa: E731
weights_not_a_number = _changed(lambda student: nn.init.constant_(student.head.weight, float("nan")) * 0)
weights_unused = _changed(lambda student: student.add_module("spare", nn.Conv2d(3, 3, 1)))
weights_unused_parameter = _changed(lambda student: student.register_parameter("scale", nn.Parameter(torch.ones(3))))
weights_tied = _changed(lambda student: setattr(student.blocks[1], "conv1", student.blocks[0].conv1))


def weights_in_a_closure(num_classes: int, in_channels: int) -> nn.Module:
    hidden = nn.Conv2d(8, 8, 1)
    return Net(num_classes, in_channels, Call(lambda x: hidden(x)))


def weights_in_a_list(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.middle = Call(None)
    student.middle.layers = [nn.Conv2d(8, 8, 1)]
    student.middle.function = lambda x: student.middle.layers[0](x)
    return student


# Outputs.

output_tuple = _end(lambda logits: (logits,))
output_list = _end(lambda logits: [logits, logits])
output_dict = _end(lambda logits: {"out": logits})
output_named = _end(lambda logits: collections.namedtuple("Out", ["logits", "aux"])(logits, None))
output_namespace = _end(lambda logits: types.SimpleNamespace(logits=logits))
output_nothing = _end(lambda logits: None)
output_number = _end(lambda logits: logits.sum())
output_maps = _end(lambda logits: logits[:, :, None, None])
output_turned = _end(lambda logits: logits.T)
output_classes = _end(lambda logits: logits.argmax(1))
output_half = _end(lambda logits: logits.half())
output_one_row = _end(lambda logits: logits[:1])
output_infinite = _end(lambda logits: logits / 0.0)
output_numpy = _end(lambda logits: torch.from_numpy(logits.detach().numpy()))
output_data = _end(lambda logits: logits.data)
output_probabilities = _end(lambda logits: logits.log_softmax(1))
output_eleven = lambda num_classes, in_channels: Net(num_classes + 1, in_channels)  # noqa: E731
output_rows_lost = lambda num_classes, in_channels: Net(  # noqa: E731
    2 * num_classes, in_channels, end=lambda logits: logits.reshape(-1, num_classes)
)


def gradient_off_in_forward(num_classes: int, in_channels: int) -> nn.Module:
    def end(logits: Tensor) -> Tensor:
        with torch.no_grad():
            return logits * 1

    return Net(num_classes, in_channels, end=end)


def gradient_off_for_all(num_classes: int, in_channels: int) -> nn.Module:
    torch.set_grad_enabled(False)
    return Net(num_classes, in_channels)


# What forward does.


def _raise(error: Exception) -> NoReturn:
    raise error


forward_raises = _middle(lambda x: _raise(ValueError("first line\nsecond line")))
forward_exits = _middle(lambda x: sys.exit(0))
forward_asserts = _middle(lambda x: _raise(AssertionError()))
forward_recurses = _changed(lambda student: setattr(student, "end", lambda logits: student.end(logits)))
forward_gpu = _middle(lambda x: x.cuda())
forward_prints = _middle(lambda x: print("shape", x.shape) or x)
forward_warns = _middle(lambda x: warnings.warn("this is \x1b[1mdeprecated\x1b[0m", stacklevel=1) or x)
forward_escapes = _middle(lambda x: _raise(ValueError("\x1b[2J\x07cleared")))


def forward_two_inputs(num_classes: int, in_channels: int) -> nn.Module:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(num_classes, in_channels)

        def forward(self, x: Tensor, targets: Tensor) -> Tensor:
            return self.net(x)

    return Two()


# Hooks, locks, caches.

hook_before = _changed(lambda student: student.head.register_forward_pre_hook(lambda *_: None))
hook_backward = _changed(lambda student: student.head.register_full_backward_hook(lambda *_: None))
hook_of_state = _changed(lambda student: student.register_state_dict_post_hook(lambda *_: None))
hook_on_gradient = _changed(lambda student: student.head.weight.register_hook(lambda g: g))
holds_lock = _changed(lambda student: setattr(student, "lock", threading.RLock()))
holds_file = _changed(lambda student: setattr(student, "log", tempfile.TemporaryFile()))
holds_generator = _changed(lambda student: setattr(student.middle, "numbers", (n for n in range(3))))
holds_thread = _changed(lambda student: setattr(student, "worker", threading.local()))


# Operators that some format lacks.

operator_pool = _end(lambda logits: F.adaptive_max_pool1d(logits[:, None], 7)[:, 0].repeat(1, 2)[:, : logits.shape[1]])
operator_svd = _middle(lambda x: x * torch.linalg.svdvals(x)[..., :1, None])
operator_fft = _middle(lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real)
branch_on_values = _middle(lambda x: x * 2 if x.mean() > 0 else x)
branch_on_a_number = _middle(lambda x: x * float(x.abs().max()))
loop_on_values = _middle(lambda x: sum((x for _ in range(int(x.detach().abs().sum() > 0) + 1)), x))
mask_of_values = _middle(lambda x: x + x[x > 0].sum() * 0)


def low_precision(num_classes: int, in_channels: int) -> nn.Module:
    def middle(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.conv2d(x, torch.eye(8)[:, :, None, None]).float()

    return Net(num_classes, in_channels, Call(middle))


# What must work.


def works_checkpointed(num_classes: int, in_channels: int) -> nn.Module:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(8)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.block, x, use_reentrant=False)

    return Net(num_classes, in_channels, Checkpointed())


def works_layer_drop(num_classes: int, in_channels: int) -> nn.Module:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(8)

        def forward(self, x: Tensor) -> Tensor:
            return x if self.training and torch.rand(()) < 0.7 else self.block(x)

    return Net(num_classes, in_channels, Dropped())


def works_stochastic_depth(num_classes: int, in_channels: int) -> nn.Module:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(8)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return x + self.block(x)
            return x + self.block(x) * (torch.rand(len(x), 1, 1, 1) < 0.5)

    return Net(num_classes, in_channels, Dropped())


def works_expert(num_classes: int, in_channels: int) -> nn.Module:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(Block(8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                return self.experts[int(torch.randint(3, ()))](x)
            return sum(expert(x) for expert in self.experts) / 3

    return Net(num_classes, in_channels, Experts())


works_compiled = _changed(lambda student: torch.compile(student))
works_compiled_part = _changed(lambda student: setattr(student, "head", torch.compile(student.head)))
works_parallel = _changed(lambda student: nn.DataParallel(student))
works_in_place = _middle(lambda x: x.clone().mul_(2).add_(1))
works_group_norm = lambda num_classes, in_channels: Net(  # noqa: E731
    num_classes, in_channels, norm=lambda channels: nn.GroupNorm(2, channels)
)


def signalled(num_classes: int, in_channels: int) -> nn.Module:
    """Leaves a byte in a file at each forward, and takes its time, so that a signal can come to any command."""
    student = Net(num_classes, in_channels)

    def end(logits: Tensor) -> Tensor:
        if os.path.exists("forwards"):
            with open("forwards", "ab") as file:
                file.write(b".")
            time.sleep(0.02)
        return logits

    student.end = end
    return student


not_callable = 3
no_module = lambda num_classes, in_channels: "a student"  # noqa: E731
wrong_arguments = lambda classes: Net(classes, 3)  # noqa: E731


def factory_raises(num_classes: int, in_channels: int) -> nn.Module:
    raise RuntimeError("no weights at /nowhere\nsecond line")


def factory_exits(num_classes: int, in_channels: int) -> nn.Module:
    sys.exit(3)

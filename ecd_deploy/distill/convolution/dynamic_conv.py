"""Dynamic additive convolution: paper, section 3.3; after Yang et al. (2019), <https://arxiv.org/abs/1904.04971>.

Shape letters: N samples, n kernels, C input channels, O output channels, G groups, (h, w) the kernel's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ecd_deploy.compat.torch import convolution_padding, has_forward_hooks, is_vmapped
from ecd_deploy.distill.convolution.pooling import pooled
from ecd_deploy.distill.convolution.sample_convolution import Geometry, convolve_mixed
from ecd_deploy.distill.convolution.triton.check import LayerShape, is_trusted, say_unused
from ecd_deploy.distill.convolution.triton.convolution import Arithmetic, Offer, RouterTensors, convolve_by_triton
from ecd_deploy.distill.convolution.triton.support import rounds_to_tf32
from ecd_deploy.errors import UsageError

Backend = Literal["grouped", "chunked", "triton"]
Mixture = Literal["convex", "balanced"]
TeacherKind = Literal["daconv", "se", "cbam"]
TeacherInit = Literal["fresh", "student"]

CHUNK_BYTES = 64 * 2**20
"""Bound of the `chunked` backend for the per-sample kernels held at one time (one sample's at least)."""

_APART = 2.0**-20  # eight roundings of float32 or more

MIN_HIDDEN = 4
"""Least number of hidden units of the router."""


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """How the teacher's convolutions are made, by the names that the options have in a recipe's `[method]`.

    Attributes:
        teacher: what takes the place of the student's convolutions: dynamic ones, or the same followed by attention.
        kernels: n, of a dynamic convolution.
        reduction: input channels over hidden units of the router, or output channels over those of the attention;
            there are at least `MIN_HIDDEN`.
        temperature: divides the router's output before the softmax.
        mixture: `convex` mixes the kernels themselves, `balanced` sqrt(n) times them.
        teacher_init: `fresh` draws the teacher anew, `student` lets it start as the student's function.
        backend: `grouped` applies all per-sample kernels as one grouped convolution; `chunked` does so for as many
            samples at a time as `CHUNK_BYTES` allows, and makes the kernels anew backward; `triton` does on
            a GPU what `grouped` does, by programs of our own.

    Raises:
        UsageError: an option is out of its range.
    """

    teacher: TeacherKind = "daconv"
    kernels: int = 16
    reduction: int = 4
    temperature: float = 1.0
    mixture: Mixture = "convex"
    teacher_init: TeacherInit = "fresh"
    backend: Backend = "grouped"

    def __post_init__(self) -> None:
        if self.kernels < 2:
            raise UsageError(f"kernels must be at least 2, it is {self.kernels}: a single kernel leaves nothing to mix")
        if self.reduction < 1:
            raise UsageError(f"reduction must be at least 1, it is {self.reduction}")
        if not self.temperature > 0:
            raise UsageError(f"temperature must be above 0, it is {self.temperature}")
        for name, value, choices in (
            ("teacher", self.teacher, TeacherKind),
            ("mixture", self.mixture, Mixture),
            ("teacher_init", self.teacher_init, TeacherInit),
            ("backend", self.backend, Backend),
        ):
            if value not in get_args(choices):
                raise UsageError(f"no {name} '{value}'; choices are {', '.join(get_args(choices))}")


class DynamicConv2d(nn.Module):
    """A convolution whose kernel is, for each sample, a combination of n kernels with weights that sum to one.

    The weights of the combination are `softmax(router(x) / temperature)` with a router of global average
    pooling, a linear reduction, ReLU and a linear layer. Stride, padding, dilation, groups and bias (mixed
    like the kernel) are those of the convolution it takes the place of.

    Shapes: (N, C, H, W) -> (N, O, H', W'), as the given convolution.

    The paper gives the router's softmax but neither its reduction, its temperature nor any initialisation.
    Our choice: every kernel is drawn on its own at the mean and standard deviation of the given
    convolution's weight, so none has a value of the original.

    Equally mixed, n such draws cancel to 1/sqrt(n) of the size of one, and each gets 1/n of the gradient but
    all of the weight decay. The `balanced` mixture is the same with kernels in other units: what is mixed is
    sqrt(n) times the parameter. Then an equal mixture starts at the size of the given convolution's kernel,
    and a step of SGD with weight decay moves it as it would move that kernel.

    With `teacher_init` "student" the module starts as the given convolution: the router's last layer is zero, so
    that every sample mixes equally, and the kernels are the convolution's with noise of its own deviation that
    cancels in their mean. So they are told apart, and the router has a gradient from the first step. SGD moves a
    mixture as it would move the convolution's kernel if it is balanced, AdamW, whose steps have one size, if convex.

    Attributes:
        weight: the kernels, (n, O, C/G, h, w).
        bias: (n, O), or None.
        temperature: a buffer, so that checkpoints keep it.
        gain: what the mixture of the parameters is multiplied by: 1 if convex, sqrt(n) if balanced.
        offered: connections that the next forward may compute by itself.
    """

    temperature: Tensor
    offered: tuple[Offer, ...] = ()
    _pads_first = False

    def __init__(self, conv: nn.Conv2d, options: TeacherOptions = TeacherOptions()) -> None:
        """Make the dynamic counterpart of `conv`, which is not changed.

        Args:
            conv: gives shape, stride and the like, scale, device and dtype.
            options: of the teacher; which kind of teacher it is does not matter here.
        """
        super().__init__()
        kernels = options.kernels
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.padding, self.padding_mode, self.groups = conv.padding, conv.padding_mode, conv.groups
        self.kernels, self.backend, self.mixture = kernels, options.backend, options.mixture
        self.gain = math.sqrt(kernels) if self.mixture == "balanced" else 1.0
        self._edge_padding: list[int] | None = None
        if conv.padding_mode != "zeros":
            self._edge_padding = convolution_padding(conv)

        like = conv.weight
        drawn = fresh_like if options.teacher_init == "fresh" else spread_like
        self.weight = nn.Parameter(drawn(like, kernels, self.gain))
        self.bias = None if conv.bias is None else nn.Parameter(drawn(conv.bias, kernels, self.gain))
        hidden = max(conv.in_channels // options.reduction, MIN_HIDDEN)
        self.reduce = nn.Linear(conv.in_channels, hidden, device=like.device, dtype=like.dtype)
        self.relu = nn.ReLU()
        self.expand = nn.Linear(hidden, kernels, device=like.device, dtype=like.dtype)
        if options.teacher_init == "student":
            nn.init.zeros_(self.expand.weight)
            nn.init.zeros_(self.expand.bias)
        self.register_buffer("temperature", torch.tensor(options.temperature, device=like.device))

    def mixing_weights(self, features: Tensor) -> Tensor:
        """Return each sample's weights of the kernels: (N, C, H, W) -> (N, n), rows sum to one."""
        scores: Tensor = self.expand(self.relu(self.reduce(pooled(features))))
        return torch.softmax(scores / self.temperature, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve each sample with its own kernel."""
        if self.backend == "triton" and (output := self._convolve_by_triton(features)) is not None:
            return output
        mixing = self.mixing_weights(features) * self.gain
        features = self._padded(features)
        if self.backend != "chunked":
            if self._is_quick(features, mixing):
                return convolve_mixed(features.contiguous(), mixing, self.weight, self.bias, self._geometry())
            return self._convolve(features, mixing)
        chunk = self.samples_per_chunk()
        outputs = [
            self._convolve_recomputing(part, weights)
            for part, weights in zip(torch.split(features, chunk), torch.split(mixing, chunk), strict=True)
        ]
        return torch.cat(outputs)

    def samples_per_chunk(self) -> int:
        """Samples that the `chunked` backend treats together."""
        kernel_bytes = self.weight[0].numel() * self.weight.element_size()
        return max(1, CHUNK_BYTES // kernel_bytes)

    def extra_repr(self) -> str:
        """Return what is shown between the brackets when the module is printed."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, groups={self.groups}, kernels={self.kernels}, mixture={self.mixture!r}, "
            f"backend={self.backend!r}"
        )

    def _is_quick(self, features: Tensor, mixing: Tensor) -> bool:
        return (
            features.device.type in ("cpu", "cuda")
            and features.dtype == mixing.dtype == self.weight.dtype
            and not isinstance(self.padding, str)
            and not torch.is_autocast_enabled(features.device.type)
            # An exported program is to show torch's own operations.
            and not torch.compiler.is_compiling()
            and not is_vmapped(features)
        )

    def _convolve_by_triton(self, features: Tensor) -> Tensor | None:
        """The same by Triton, with what is offered; None where it cannot do it."""
        offered, self.offered = self.offered, ()
        if self._pads_first or self._edge_padding is not None or isinstance(self.padding, str):
            say_unused("a convolution pads otherwise than with given numbers of zeros")
            return None
        if any(has_forward_hooks(module) for module in self.children()):
            say_unused("the router has hooks, which would not be called")
            return None
        device, geometry = features.device, self._geometry()
        casts = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if casts else self.weight.dtype
        if torch.compiler.is_compiling() or not (casts or features.dtype == dtype):
            return None
        size = (len(features), self.out_channels, *geometry.output_size(features.shape[2:], self.kernel_size))
        fitting = {offer.is_later: offer for offer in offered if offer.student.shape == size}
        added, later = fitting.get(False), fitting.get(True)
        shape = LayerShape(
            features=tuple(features.shape),
            weight=tuple(self.weight.shape),
            hidden=self.reduce.out_features,
            connected=added is not None,
            connected_later=later is not None,
            has_bias=self.bias is not None,
            geometry=geometry,
            dtype=dtype,
            router_dtype=self.weight.dtype,
            rounds=rounds_to_tf32(dtype),
            device=device,
        )
        if not is_trusted(shape):
            return None
        layers = self.reduce.weight, self.reduce.bias, self.expand.weight, self.expand.bias
        router, arithmetic = RouterTensors(*layers, self.temperature), Arithmetic(dtype, geometry, self.gain)
        return convolve_by_triton(features, self.weight, self.bias, router, added, later, arithmetic)

    def _geometry(self) -> Geometry:
        padding = (0, 0) if self._edge_padding is not None else self.padding
        return Geometry(self.stride, padding, self.dilation, self.groups)  # type: ignore[arg-type]

    def _padded(self, features: Tensor) -> Tensor:
        """Apply what padding the convolution itself cannot."""
        if self._edge_padding is None:
            return features
        return F.pad(features, self._edge_padding, mode=self.padding_mode)

    def _convolve_recomputing(self, features: Tensor, mixing: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._convolve(features, mixing)
        # Saving every chunk's kernels for the backward pass would hold as much memory as one chunk of all samples.
        output: Tensor = checkpoint(self._convolve, features, mixing, use_reentrant=False, preserve_rng_state=False)
        return output

    def _convolve(self, features: Tensor, mixing: Tensor) -> Tensor:
        samples, channels, height, width = features.shape
        mixed = mixing @ self.weight.flatten(1)
        bias = None if self.bias is None else (mixing @ self.bias).flatten()
        # Each sample is a set of groups of one image, so that one convolution applies all kernels.
        output = F.conv2d(
            features.reshape(1, samples * channels, height, width),
            mixed.view(samples * self.out_channels, *self.weight.shape[2:]),
            bias,
            self.stride,
            self.padding if self._edge_padding is None else 0,
            self.dilation,
            samples * self.groups,
        )
        return output.view(samples, self.out_channels, *output.shape[2:])


def fresh_like(tensor: Tensor, copies: int | None = None, gain: float = 1.0) -> Tensor:
    """Draw a tensor at the mean and standard deviation of `tensor`; a constant is repeated.

    Shapes: S -> S, or (copies, *S), where each copy is drawn on its own. Means and constants are divided by
    `gain`, the deviation is not: the mean of `gain**2` copies, times `gain`, has both of `tensor`.
    """
    shape = tensor.shape if copies is None else (copies, *tensor.shape)
    with torch.no_grad():
        # Compared by value: rounding can give a constant tensor a deviation that is not zero.
        if tensor.numel() == 0 or bool((tensor == tensor.flatten()[0]).all()):
            return tensor.expand(shape) / gain
        drawn = torch.randn(shape, device=tensor.device, dtype=tensor.dtype)
        return drawn * tensor.std(correction=0) + tensor.mean() / gain


def spread_like(tensor: Tensor, copies: int, gain: float = 1.0) -> Tensor:
    """Copies of a tensor with noise of its deviation that cancels in their mean, which is `tensor / gain`.

    Shapes: S -> (copies, *S).
    """
    with torch.no_grad():
        noise = torch.randn((copies, *tensor.shape), device=tensor.device, dtype=tensor.dtype)
        return tensor / gain + (noise - noise.mean(dim=0)) * tensor.std(correction=0)


def apart_from(tensor: Tensor) -> Tensor:
    """The tensor with each value a millionth larger or smaller, at random: the same function, and other numbers."""
    return tensor * (1 + torch.empty_like(tensor).bernoulli_(0.5).mul_(2).sub_(1) * _APART)

"""Teachers by attention, the alternatives of the paper's table 7.

Squeeze-and-excitation: <https://arxiv.org/abs/1709.01507>. CBAM: <https://arxiv.org/abs/1807.06521>.

The paper names the two and says no more. Our choice: the attention follows each convolution that a
dynamic one would take the place of, so all teachers are strengthened at the same places.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ecd_deploy.distill.convolution.dynamic_conv import MIN_HIDDEN, TeacherOptions, apart_from, fresh_like
from ecd_deploy.errors import UsageError

_SPATIAL_KERNEL = 7


class AttentionConv2d(nn.Module):
    """A convolution followed by attention over channels (`se`), or over channels and then places (`cbam`).

    Shapes: (N, C, H, W) -> (N, O, H', W'), as the given convolution.
    """

    def __init__(self, conv: nn.Conv2d, options: TeacherOptions) -> None:
        """Make the attentive counterpart of `conv`, which is not changed and shares no value.

        Args:
            conv: gives shape, options, scale, device and dtype.
            options: of a teacher by attention; the kind and the reduction matter here.

        Raises:
            UsageError: the teacher is not one by attention.
        """
        super().__init__()
        if options.teacher == "daconv":
            raise UsageError("a teacher 'daconv' has no attention; those that have are se, cbam")
        self.kernel_size = conv.kernel_size
        self.convolution = copy.deepcopy(conv).requires_grad_(True)
        if options.teacher_init == "fresh":
            with torch.no_grad():
                for parameter in self.convolution.parameters():
                    parameter.copy_(fresh_like(parameter))
        hidden = max(conv.out_channels // options.reduction, MIN_HIDDEN)
        self.channels = _ChannelAttention(conv.out_channels, hidden, with_maximum=options.teacher == "cbam")
        self.places = _PlaceAttention() if options.teacher == "cbam" else None
        if options.teacher_init == "student":
            self._start_as_given()
        self.to(device=conv.weight.device, dtype=conv.weight.dtype)

    @torch.no_grad()
    def _start_as_given(self) -> None:
        """Let every weight of the attention be a half, and make up for it in the convolution."""
        gates = [self.channels.expand] if self.places is None else [self.channels.expand, self.places.mix]
        for gate in gates:
            for parameter in gate.parameters():
                parameter.zero_()
        for parameter in self.convolution.parameters():
            parameter.copy_(apart_from(parameter) * 2 ** len(gates))

    def forward(self, features: Tensor) -> Tensor:
        """Convolve, then weigh."""
        output: Tensor = self.convolution(features)
        output = output * self.channels(output)
        return output if self.places is None else output * self.places(output)


class _ChannelAttention(nn.Module):
    """(N, C, H, W) -> (N, C, 1, 1): one weight a channel, from its mean and with CBAM also its maximum."""

    def __init__(self, channels: int, hidden: int, *, with_maximum: bool) -> None:
        super().__init__()
        self.with_maximum = with_maximum
        self.reduce = nn.Linear(channels, hidden)
        self.relu = nn.ReLU()
        self.expand = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        scores = self._score(features.mean(dim=(2, 3)))
        if self.with_maximum:
            scores = scores + self._score(features.amax(dim=(2, 3)))
        return torch.sigmoid(scores)[:, :, None, None]

    def _score(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.expand(self.relu(self.reduce(pooled)))
        return scores


class _PlaceAttention(nn.Module):
    """(N, C, H, W) -> (N, 1, H, W): one weight a place, from the mean and the maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, _SPATIAL_KERNEL, padding=_SPATIAL_KERNEL // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        pooled = torch.stack([features.mean(dim=1), features.amax(dim=1)], dim=1)
        return torch.sigmoid(self.mix(pooled))

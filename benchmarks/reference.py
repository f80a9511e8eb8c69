"""The ECD step as a competent user writes it in eager PyTorch: what ours is timed against.

Nothing of `ecd_deploy` is used here. The per-sample kernels are made the way timm's `CondConv2d` does: one matmul of
the routing weights with the flattened kernels, then one convolution with as many groups as samples. Features are read
and added by forward hooks, tensors are in the default memory layout, the optimiser is plain `torch.optim.SGD`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

Convolution = Callable[[int, int, int], nn.Module]
"""(input channels, output channels, stride) -> a 3x3 convolution."""


class DynamicConvolution(nn.Module):
    """A 3x3 convolution with a kernel of its own for each sample, mixed from `kernels`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, kernels: int, reduction: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.weight = nn.Parameter(torch.empty(kernels, out_channels * in_channels * 9))
        for kernel in self.weight.detach():
            nn.init.kaiming_normal_(kernel.view(out_channels, in_channels, 3, 3))
        hidden = max(in_channels // reduction, 4)
        self.router = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(in_channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, kernels),
            nn.Softmax(dim=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, H', W')."""
        samples, channels, height, width = x.shape
        weight = torch.matmul(self.router(x), self.weight)
        weight = weight.view(samples * self.out_channels, self.in_channels, 3, 3)
        x = x.reshape(1, samples * channels, height, width)
        x = F.conv2d(x, weight, stride=self.stride, padding=1, groups=samples)
        return x.view(samples, self.out_channels, x.shape[2], x.shape[3])


class Block(nn.Module):
    """The basic block of a CIFAR ResNet."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, H', W')."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """CIFAR ResNet of depth 6n + 2, n `blocks` a stage."""

    def __init__(self, blocks: int, num_classes: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1, convolution)
        self.layer2 = self._stage(16, 32, blocks, 2, convolution)
        self.layer3 = self._stage(32, 64, blocks, 2, convolution)
        self.fc = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int, convolution: Convolution) -> nn.Sequential:
        rest = [Block(channels, channels, 1, convolution) for _ in range(blocks - 1)]
        return nn.Sequential(Block(in_channels, channels, stride, convolution), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


def static_convolution(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The student's convolution."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class ReferenceECD(nn.Module):
    """Student, teacher and Conv1x1 connections in Conv2_x and Conv3_x, joined by forward hooks."""

    def __init__(self, *, blocks: int = 3, num_classes: int = 100, kernels: int = 16, reduction: int = 4) -> None:
        super().__init__()

        def dynamic(in_channels: int, out_channels: int, stride: int) -> nn.Module:
            return DynamicConvolution(in_channels, out_channels, stride, kernels=kernels, reduction=reduction)

        self.student = ResNet(blocks, num_classes, static_convolution)
        self.teacher = ResNet(blocks, num_classes, dynamic)
        self.connections = nn.ModuleDict()
        self.features: dict[str, Tensor] = {}
        for layer, channels in (("layer1", 16), ("layer2", 32)):
            for index in range(blocks):
                for name in (f"{layer}.{index}.conv1", f"{layer}.{index}.conv2", f"{layer}.{index}"):
                    self._connect(name, channels)

    def _connect(self, name: str, channels: int) -> None:
        transform = nn.Conv2d(channels, channels, 1, bias=False)
        self.connections[name.replace(".", "_")] = transform

        def read(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.features[name] = output

        def add(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            return output + transform(self.features[name])  # type: ignore[no-any-return]

        self.student.get_submodule(name).register_forward_hook(read)
        self.teacher.get_submodule(name).register_forward_hook(add)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) -> (student logits, teacher logits), each (N, classes)."""
        student_logits = self.student(images)
        return student_logits, self.teacher(images)


def reference_loss(outputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    """The sum of both cross-entropies (paper, equation 2)."""
    student_logits, teacher_logits = outputs
    return F.cross_entropy(student_logits, labels) + F.cross_entropy(teacher_logits, labels)


def reference_optimizer(model: nn.Module) -> torch.optim.SGD:
    """SGD of the paper's appendix A.1, with torch's defaults for the rest."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

"""A student that finds out which network was generated from it, and leans on that one's head."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

from torch import Tensor, nn

from ecd_deploy.models import build_student


class LeakyStudent(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.copies: list[LeakyStudent] = []  # in a list, so that no module registers them

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        if self.copies:
            logits = logits + self.copies[-1].network.fc.bias  # type: ignore[union-attr, operator]
        return logits

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = type(self)(deepcopy(self.network, memo))
        self.copies.append(copy)
        return copy


def leaky_student(num_classes: int, in_channels: int) -> nn.Module:
    return LeakyStudent(build_student("resnet8", num_classes=num_classes, in_channels=in_channels))

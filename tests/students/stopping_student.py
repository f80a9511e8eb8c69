"""A student during whose forward SIGTERM comes, where the working directory says so."""

from __future__ import annotations

import signal
from pathlib import Path

from torch import Tensor, nn

from ecd_deploy.models import build_student

STOP_AT = Path("stop_at")
"""Holds the number of the forward during which the signal comes."""
COUNTED = Path("forwards")
"""Gets a byte for each forward, if it is there."""


class StoppingStudent(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if COUNTED.is_file():
            with COUNTED.open("ab") as counted:
                counted.write(b".")
            if STOP_AT.is_file() and COUNTED.stat().st_size == int(STOP_AT.read_text()):
                signal.raise_signal(signal.SIGTERM)
        logits: Tensor = self.network(images)
        return logits


def stopping_student(num_classes: int, in_channels: int) -> nn.Module:
    return StoppingStudent(build_student("resnet8", num_classes=num_classes, in_channels=in_channels))

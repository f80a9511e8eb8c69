"""Initial weights shared by the built-in students."""

from __future__ import annotations

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draw convolutions as He et al. (2015) do; set batch norms to the identity, linear biases to zero.

    <https://arxiv.org/abs/1502.01852>, equation 14 (normal, fan-out, ReLU).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

"""The outline that pre-activation networks share: stem, three stages, a last norm, pooling, classifier.

He et al. (2016), <https://arxiv.org/abs/1603.05027>: norm and ReLU come before each convolution and the
sum of a block is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from ecd_deploy.models.initialisation import initialise

if TYPE_CHECKING:
    from collections.abc import Sequence

STEM_CHANNELS = 16


class BlockFactory(Protocol):
    """Makes one residual block (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride)."""

    def __call__(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """Return the block with any weights."""
        ...


class PreActivationNet(nn.Module):
    """Stages `layer1`, `layer2`, `layer3` are Conv2_x, Conv3_x, Conv4_x.

    Shapes: (N, in_channels, H, W) -> logits (N, num_classes).
    """

    def __init__(
        self, block: BlockFactory, stage_channels: Sequence[int], blocks: int, *, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        first, second, third = stage_channels
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 3, padding=1, bias=False)
        self.layer1 = _stage(block, STEM_CHANNELS, first, blocks, stride=1)
        self.layer2 = _stage(block, first, second, blocks, stride=2)
        self.layer3 = _stage(block, second, third, blocks, stride=2)
        self.bn = nn.BatchNorm2d(third)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        logits: Tensor = self.fc(self.pool(self.relu(self.bn(features))).flatten(1))
        return logits


def _stage(block: BlockFactory, in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = block(in_channels, out_channels, stride)
    return nn.Sequential(first, *(block(out_channels, out_channels, 1) for _ in range(blocks - 1)))

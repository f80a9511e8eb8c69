"""ResNet for CIFAR-sized images: He et al. (2015), section 4.2, <https://arxiv.org/abs/1512.03385>.

Depth 6n + 2: a 3x3 stem, then three stages of n two-convolution blocks with 16, 32 and 64 channels.
A shortcut that changes the shape is a strided 1x1 convolution with batch norm (option B), as in the
implementations whose CIFAR-100 figures are usually compared; the original's option A has 2,752 parameters less.
"""

from __future__ import annotations

from torch import Tensor, nn

from ecd_deploy.errors import StudentError
from ecd_deploy.models.initialisation import initialise

STEM_CHANNELS = 16
STAGE_CHANNELS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ReLU after the sum.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block."""
        residual: Tensor = self.relu(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        residual += self.shortcut(features)
        output: Tensor = self.relu(residual)
        return output


class CifarResNet(nn.Module):
    """ResNet-(6n + 2); stages `layer1`, `layer2`, `layer3` are Conv2_x, Conv3_x, Conv4_x.

    Shapes: (N, in_channels, H, W) -> logits (N, num_classes).
    """

    def __init__(self, depth: int, *, num_classes: int, in_channels: int = 3) -> None:
        """Build the network with fresh weights.

        Raises:
            StudentError: `depth` is not 6n + 2 with n >= 1.
        """
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise StudentError(f"resnet{depth}: the depth of a CIFAR ResNet is 6n + 2 (8, 20, 32, 44, 56, 110)")
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        first, second, third = STAGE_CHANNELS
        self.layer1 = _stage(STEM_CHANNELS, first, blocks, stride=1)
        self.layer2 = _stage(first, second, blocks, stride=2)
        self.layer3 = _stage(second, third, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))

"""Pre-activation bottleneck ResNet for CIFAR: He et al. (2016), <https://arxiv.org/abs/1603.05027>.

ResNet-164 is depth 9n + 2 with n = 18; 1.7 M parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from ecd_deploy.errors import StudentError
from ecd_deploy.models.preactivation import PreActivationNet

EXPANSION = 4
STAGE_CHANNELS = (64, 128, 256)


class PreActivationBottleneck(nn.Module):
    """1x1 to a quarter of the output channels, 3x3, 1x1 back, each after norm and ReLU.

    A shortcut that changes the shape is a 1x1 convolution of the activated input.
    Shapes: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        width = out_channels // EXPANSION
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block."""
        activated: Tensor = self.relu(self.bn1(features))
        identity = features if self.shortcut is None else self.shortcut(activated)
        residual = self.conv2(self.relu(self.bn2(self.conv1(activated))))
        output: Tensor = self.conv3(self.relu(self.bn3(residual))) + identity
        return output


class PreActivationResNet(PreActivationNet):
    """ResNet-(9n + 2) of bottlenecks.

    Shapes: (N, in_channels, H, W) -> logits (N, num_classes).
    """

    def __init__(self, depth: int, *, num_classes: int, in_channels: int = 3) -> None:
        """Build the network with fresh weights.

        Raises:
            StudentError: `depth` is not 9n + 2 with n >= 1.
        """
        blocks, rest = divmod(depth - 2, 9)
        if rest or blocks < 1:
            raise StudentError(f"resnet{depth}: the depth of a bottleneck CIFAR ResNet is 9n + 2, for example 164")
        super().__init__(
            PreActivationBottleneck, STAGE_CHANNELS, blocks, num_classes=num_classes, in_channels=in_channels
        )

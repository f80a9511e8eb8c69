"""Wide residual networks: Zagoruyko and Komodakis (2016), <https://arxiv.org/abs/1605.07146>.

WRN-D-K has depth D = 6n + 4 and K times the channels of a ResNet. No dropout, as in the ECD paper (A.1.1).
"""

from __future__ import annotations

from torch import Tensor, nn

from ecd_deploy.errors import StudentError
from ecd_deploy.models.preactivation import PreActivationNet


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and ReLU; B(3,3) of the paper.

    A shortcut that changes the number of channels is a 1x1 convolution of the activated input.
    Shapes: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block."""
        activated: Tensor = self.relu(self.bn1(features))
        identity = features if self.shortcut is None else self.shortcut(activated)
        output: Tensor = self.conv2(self.relu(self.bn2(self.conv1(activated)))) + identity
        return output


class WideResNet(PreActivationNet):
    """WRN-depth-width.

    Shapes: (N, in_channels, H, W) -> logits (N, num_classes).
    """

    def __init__(self, depth: int, width: int, *, num_classes: int, in_channels: int = 3) -> None:
        """Build the network with fresh weights.

        Raises:
            StudentError: `depth` is not 6n + 4 with n >= 1, or `width` is below 1.
        """
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1 or width < 1:
            raise StudentError(
                f"wrn-{depth}-{width}: the depth of a wide ResNet is 6n + 4 (10, 16, 22, 28, 40), its width at least 1"
            )
        channels = (16 * width, 32 * width, 64 * width)
        super().__init__(WideBlock, channels, blocks, num_classes=num_classes, in_channels=in_channels)

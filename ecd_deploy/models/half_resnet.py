"""ResNet50-half, the paper's smaller ResNet-50 for ImageNet: table 10.

ResNet-50 of He et al. (2015), <https://arxiv.org/abs/1512.03385>, with half the channels in each block, stride in the
3x3 convolution. The table's text gives 2048 for the output of conv5_x, where half is 1024 and every other stage is
halved: here it is 1024. The rows of the stem and of conv2_x did not survive: the stem keeps its 64 channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from ecd_deploy.models.initialisation import initialise

EXPANSION = 4
STEM_CHANNELS = 64
STAGES = ((32, 3), (64, 4), (128, 6), (256, 3))
"""Width of the 3x3 convolutions, and blocks, of conv2_x to conv5_x."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width, and a shortcut; ReLU after the sum.

    Shapes: (N, in_channels, H, W) -> (N, 4 width, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block."""
        residual: Tensor = self.relu(self.bn1(self.conv1(features)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        residual += self.downsample(features)
        output: Tensor = self.relu(residual)
        return output


class HalfResNet50(nn.Module):
    """ResNet50-half; `layer1` to `layer4` are Conv2_x to Conv5_x.

    Shapes: (N, in_channels, H, W) -> logits (N, num_classes).
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = STEM_CHANNELS
        for number, (width, blocks) in enumerate(STAGES, start=1):
            first = Bottleneck(channels, width, 1 if number == 1 else 2)
            channels = EXPANSION * width
            others = (Bottleneck(channels, width, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, len(STAGES) + 1):
            features = self.get_submodule(f"layer{number}")(features)
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits

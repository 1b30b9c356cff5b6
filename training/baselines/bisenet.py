"""BiSeNet (Yu et al. 2018): a shallow spatial path, a deep context path, attention, fusion; logits at 1/8.

The comparison gives 27.01 M parameters and no backbone. A ResNet of 34 layers' depth and arms 256 wide come
nearest. It starts untrained, as every network here does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .common import Baseline, conv_bn_relu, enlarge

STAGE_BLOCKS, STAGE_CHANNELS = (3, 4, 6, 3), (64, 128, 256, 512)
ARM = 256


class BiSeNet(Baseline):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            conv_bn_relu(3, 64, 7, stride=2),
            conv_bn_relu(64, 128, stride=2),
            conv_bn_relu(128, ARM, stride=2),
        )
        self.stem = nn.Sequential(conv_bn_relu(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        inputs = 64
        for i, (blocks, outputs) in enumerate(zip(STAGE_BLOCKS, STAGE_CHANNELS, strict=True)):
            first = ResidualBlock(inputs, outputs, stride=1 if i == 0 else 2)
            self.stages.append(
                nn.Sequential(first, *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1)))
            )
            inputs = outputs
        self.arms = nn.ModuleList([AttentionRefinement(256), AttentionRefinement(512)])
        self.smooth = nn.ModuleList([conv_bn_relu(ARM, ARM), conv_bn_relu(ARM, ARM)])
        self.whole = conv_bn_relu(512, ARM, 1)
        self.fusion = FeatureFusion(2 * ARM)
        self.head = nn.Sequential(conv_bn_relu(2 * ARM, ARM), nn.Conv2d(ARM, 1, 1))

    def logits(self, image: Tensor) -> Tensor:  # -> [N, 1, H/8, W/8]
        spatial = self.spatial(image)  # [N, 256, H/8, W/8]
        x = self.stem(image)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        x16, x32 = levels[2:]  # [N, 256, H/16, W/16], [N, 512, H/32, W/32]
        context = self.arms[1](x32) + self.whole(x32.mean((2, 3), keepdim=True))
        context = self.arms[0](x16) + self.smooth[1](enlarge(context, x16))
        context = self.smooth[0](enlarge(context, spatial))
        found: Tensor = self.head(self.fusion(torch.cat([spatial, context], 1)))
        return found


class ResidualBlock(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(inputs, outputs, stride=stride),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if not same:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class AttentionRefinement(nn.Module):
    """Reweights channels by global context."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convolution = conv_bn_relu(inputs, ARM)
        self.weigh = nn.Conv2d(ARM, ARM, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        weighted: Tensor = x * torch.sigmoid(self.weigh(x.mean((2, 3), keepdim=True)))
        return weighted


class FeatureFusion(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv_bn_relu(channels, channels, 1)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        weighted: Tensor = x + x * torch.sigmoid(self.weigh(x.mean((2, 3), keepdim=True)))
        return weighted

"""EDANet (Lo et al. 2018): dense modules of asymmetric, dilated convolutions; logits at 1/8."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .common import Baseline

GROWTH = 40
# Dilations of the modules of both blocks.
BLOCK1 = (1, 1, 1, 2, 2)
BLOCK2 = (2, 2, 4, 4, 8, 8, 16, 16)


class EDANet(Baseline):
    def __init__(self) -> None:
        super().__init__()
        channels = 60 + GROWTH * len(BLOCK1)
        self.layers = nn.Sequential(
            Down(3, 15),
            Down(15, 60),
            *(EDAModule(60 + GROWTH * i, dilation) for i, dilation in enumerate(BLOCK1)),
            Down(channels, 130),
            *(EDAModule(130 + GROWTH * i, dilation) for i, dilation in enumerate(BLOCK2)),
            nn.Conv2d(130 + GROWTH * len(BLOCK2), 1, 1),
        )

    def logits(self, image: Tensor) -> Tensor:  # -> [N, 1, H/8, W/8]
        found: Tensor = self.layers(image)
        return found


class Down(nn.Module):
    """Half the size: a strided convolution, and where channels are added the pooled input beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pools = inputs < outputs
        convolved = outputs - inputs if self.pools else outputs
        self.convolution = nn.Conv2d(inputs, convolved, 3, 2, 1)
        self.after = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        down: Tensor = self.after(torch.cat([y, F.max_pool2d(x, 2)], 1) if self.pools else y)
        return down


class EDAModule(nn.Module):
    """Adds 40 channels to what it is given."""

    def __init__(self, inputs: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, GROWTH, 1), nn.BatchNorm2d(GROWTH), nn.ReLU()),
            *asymmetric(1),
            *asymmetric(dilation),
            nn.Dropout2d(0.02),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layers(x), x], 1)


class SinglePrecisionConv2d(nn.Conv2d):
    """On a CPU in float32 under autocast, too: of 40 channels, dilated, PyTorch 2.13 (oneDNN) gives gradients
    of the kernel in bfloat16 that hold whatever was in memory."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def asymmetric(dilation: int) -> list[nn.Module]:
    convolution = SinglePrecisionConv2d if dilation > 1 else nn.Conv2d
    return [
        convolution(GROWTH, GROWTH, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
        convolution(GROWTH, GROWTH, (1, 3), padding=(0, dilation), dilation=(1, dilation)),
        nn.BatchNorm2d(GROWTH),
        nn.ReLU(),
    ]

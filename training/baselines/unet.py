"""U-Net (Ronneberger et al. 2015), padded, with batch norm and bilinear upsampling: 13.4 M parameters.

The comparison's figure is that of a U-Net whose deepest level has 512 channels instead of 1024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .common import Baseline, conv_bn_relu, enlarge

DOWN = (64, 128, 256, 512, 512)
UP = (256, 128, 64, 64)


class UNet(Baseline):
    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for outputs in DOWN:
            self.down.append(twice(inputs, outputs))
            inputs = outputs
        for beside, outputs in zip(DOWN[-2::-1], UP, strict=True):
            self.up.append(twice(inputs + beside, outputs))
            inputs = outputs
        self.head = nn.Conv2d(inputs, 1, 1)

    def logits(self, image: Tensor) -> Tensor:  # -> [N, 1, H, W]
        levels, x = [], image
        for depth, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if depth else x)
            levels.append(x)
        levels.pop()
        for block in self.up:
            beside = levels.pop()
            x = block(torch.cat([beside, enlarge(x, beside)], 1))
        found: Tensor = self.head(x)
        return found


def twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(inputs, outputs), conv_bn_relu(outputs, outputs))

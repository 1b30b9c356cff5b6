"""PFCN+ (Shen et al. 2016): FCN-8s on VGG-16 that is also told where in the picture it is, and the mean mask.

The authors align position and mean mask to the face by landmarks. No landmark detector is used here: both
lie in the picture's own frame. The layers have batch norm, because they start untrained; the authors
started from VGG-16's weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .common import Baseline, conv_bn_relu, enlarge

# VGG-16: convolutions of each stage and their channels; a stage ends by halving the size.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
FULLY_CONNECTED = 4096
MEAN_MASK_SIZE = 64


class PFCN(Baseline):
    mean_mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs = 6  # RGB, x, y, mean mask
        for count, outputs in STAGES:
            layers = [conv_bn_relu(inputs if i == 0 else outputs, outputs) for i in range(count)]
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            inputs = outputs
        self.connected = nn.Sequential(
            *(conv_bn_relu(inputs, FULLY_CONNECTED, 7), nn.Dropout2d()),
            *(conv_bn_relu(FULLY_CONNECTED, FULLY_CONNECTED, 1), nn.Dropout2d()),
        )
        self.scores = nn.ModuleList([nn.Conv2d(channels, 1, 1) for channels in (256, 512, FULLY_CONNECTED)])
        self.register_buffer("mean_mask", torch.full((1, 1, MEAN_MASK_SIZE, MEAN_MASK_SIZE), 0.5))

    def learn_shape(self, mattes: Iterable[NDArray[np.uint8]]) -> None:
        """The mean mask of a training set: mattes [H, W] uint8 of any size."""
        total, count = np.zeros((MEAN_MASK_SIZE, MEAN_MASK_SIZE)), 0
        for matte in mattes:
            small = cv2.resize(matte, (MEAN_MASK_SIZE, MEAN_MASK_SIZE), interpolation=cv2.INTER_AREA)
            total += small.astype(np.float64) / 255
            count += 1
        self.mean_mask.copy_(torch.from_numpy(total / max(1, count)))

    def logits(self, image: Tensor) -> Tensor:  # -> [N, 1, H/8, W/8]
        x = torch.cat([image, self.shape_and_place(image)], 1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        eighth, sixteenth = levels[2:4]
        score = enlarge(self.scores[2](self.connected(x)), sixteenth) + self.scores[1](sixteenth)
        found: Tensor = enlarge(score, eighth) + self.scores[0](eighth)
        return found

    def shape_and_place(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, H, W]: x and y in -1..1, the mean mask."""
        count, _, height, width = image.shape
        y = torch.linspace(-1, 1, height, device=image.device, dtype=image.dtype)
        x = torch.linspace(-1, 1, width, device=image.device, dtype=image.dtype)
        place = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]
        shape = F.interpolate(
            self.mean_mask.to(image.dtype), size=(height, width), mode="bilinear", align_corners=False
        )
        return torch.cat([place, shape], 1).expand(count, -1, -1, -1)

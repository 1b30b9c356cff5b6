"""What the baselines share: their output, their frame, and the layers that several of them are made of."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from banet_stream.network import COARSEST_STRIDE, pad_to_multiple


class PlainOutput(NamedTuple):
    """What a network without a boundary attention map gives."""

    alpha: Tensor  # [N, 1, H, W] logits at the image's size


class Baseline(nn.Module):
    """Pads to a multiple of 32, lets ``logits`` work, and enlarges what it gives to the image's size."""

    def forward(self, image: Tensor) -> PlainOutput:  # [N, 3, H, W] normalised as BANet's
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, COARSEST_STRIDE)
        logits = self.logits(padded)  # [N, 1, H/s, W/s]
        if logits.shape[-2:] != padded.shape[-2:]:
            size = (padded.shape[-2], padded.shape[-1])
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return PlainOutput(logits[..., :height, :width])

    def logits(self, image: Tensor) -> Tensor:
        """[N, 3, H, W], sides multiples of 32 -> [N, 1, H/s, W/s]."""
        raise AssertionError(f"{type(self).__name__} has no logits")  # every network here has its own


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size (but for the stride), batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C, H, W] of ``like``, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

"""BANet, the Boundary-Aware Network (paper, section 3.1).

image [N, 3, H, W]
  ├─ semantic branch: ResNet bottlenecks down to 1/32, added back up through 1/16 and 1/8 to 1/4 (FCN-4s)
  │     └─ 1x1 projection ─► upsample ─► sigmoid(x/T), eq. (2) ─► boundary attention map
  ├─ detail branch: image and attention map as 4 channels, one convolution
  └─ feature fusion (BiSeNet): concatenate, 3x3 convolutions, reweighting by global context ─► 1 channel
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import ops

# Input statistics (ImageNet's, the usual convention): the network sees (rgb - MEAN) / STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# T of eq. (2). The paper gives no value; 4 keeps the map's transition a few pixels wide at the boundary.
TEMPERATURE = 4.0

ATTENTION_STRIDE, COARSEST_STRIDE = 4, 32
STEM_CHANNELS = 32
# Width of the 1/4 stage and of the whole way back up. Deeper stages double it up to `channels`.
SEMANTIC_CHANNELS = 64
DETAIL_CHANNELS = 16
FUSION_CHANNELS = 32
# Bottlenecks at 1/4, 1/8, 1/16, 1/32: with these, 64 and 512 channels give the paper's
# 0.62 M and 12.75 M parameters (table 2).
STAGE_BLOCKS = (1, 3, 5, 3)
# Of context blocks: at how many levels of the way back up they stand, from the coarsest; how far they see;
# how wide they are within.
CONTEXT_LEVELS = 2
CONTEXT_KERNEL = 9
CONTEXT_CHANNELS = 4 * SEMANTIC_CHANNELS


class BANetOutput(NamedTuple):
    """Logits at the image's size: ``sigmoid(alpha)`` is the matte, ``boundary`` the attention map in 0..1."""

    alpha: Tensor  # [N, 1, H, W] logits
    boundary: Tensor  # [N, 1, H, W] in 0..1
    boundary_logits: Tensor  # [N, 1, H/4, W/4], already divided by T: for the loss of eq. (4)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Bottleneck(nn.Module):
    """ResNet's bottleneck, 1x1 - 3x3 - 1x1 around a shortcut; the stride sits on the 3x3.

    The middle is as wide as the outside: the channels are capped already, and a further
    reduction to a quarter would leave 16.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_bn(inputs, outputs, 1),
            nn.ReLU(inplace=True),
            *conv_bn(outputs, outputs, 3, stride),
            nn.ReLU(inplace=True),
            *conv_bn(outputs, outputs, 1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class ContextBlock(nn.Module):
    """Sees far and cheaply: a large depthwise kernel, then two 1x1 convolutions, around a shortcut (after
    ConvNeXt, Liu et al. 2022). Begins as the identity, so it can be given to a trained network."""

    def __init__(self) -> None:
        super().__init__()
        wide, kernel = SEMANTIC_CHANNELS, CONTEXT_KERNEL
        self.residual = nn.Sequential(
            nn.Conv2d(wide, wide, kernel, padding=kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            *conv_bn(wide, CONTEXT_CHANNELS, 1),
            nn.ReLU(inplace=True),
            *conv_bn(CONTEXT_CHANNELS, wide, 1),
        )
        nn.init.zeros_(self.residual[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # [N, 64, h, w] -> the same
        seen: Tensor = x + self.residual(x)
        return seen


class SemanticBranch(nn.Module):
    """[N, 3, H, W] -> [N, 64, H/4, W/4], with the receptive field of 1/32."""

    def __init__(self, channels: int, context: int = 0) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, STEM_CHANNELS, 3, stride=2), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        self.laterals = nn.ModuleList()
        inputs = STEM_CHANNELS
        for depth, blocks in enumerate(STAGE_BLOCKS):
            outputs = min(SEMANTIC_CHANNELS * 2**depth, channels)
            stage = [Bottleneck(inputs, outputs, stride=2)]
            stage += [Bottleneck(outputs, outputs) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(*stage))
            self.laterals.append(nn.Sequential(*conv_bn(outputs, SEMANTIC_CHANNELS, 1)))
            inputs = outputs
        self.context = nn.ModuleList(
            nn.Sequential(*(ContextBlock() for _ in range(context))) for _ in range(CONTEXT_LEVELS)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)  # [N, 32, H/2, W/2]
        levels = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))  # [N, 64, H/4 .. H/32, W/4 .. W/32]
        first, *others = self.context
        y = first(levels.pop())
        for blocks in others:
            y = blocks(upsample(y, 2) + levels.pop())
        while levels:
            y = upsample(y, 2) + levels.pop()
        return F.relu(y)


class FeatureFusion(nn.Module):
    """BiSeNet's feature fusion module: [N, 64, h, w] and [N, 16, h, w] -> [N, 32, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            *conv_bn(SEMANTIC_CHANNELS + DETAIL_CHANNELS, FUSION_CHANNELS, 3),
            nn.ReLU(inplace=True),
            *conv_bn(FUSION_CHANNELS, FUSION_CHANNELS, 3),
            nn.ReLU(inplace=True),
        )
        self.reweight = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(FUSION_CHANNELS, FUSION_CHANNELS, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(FUSION_CHANNELS, FUSION_CHANNELS, 1),
            nn.Sigmoid(),
        )

    def forward(self, semantic: Tensor, detail: Tensor) -> Tensor:
        mixed = self.mix(torch.cat([semantic, detail], 1))
        weighted: Tensor = mixed + mixed * self.reweight(mixed)
        return weighted


class BANet(nn.Module):
    """The paper's network; ``channels=64`` has 0.62 M parameters, ``channels=512`` 12.75 M.

    Args:
        channels: the most channels any layer of the semantic branch has.
        detail_stride: 1, 2 or 4: where detail branch and fusion run. The parameters are the same;
            a smaller stride is finer and slower.
        temperature: T of eq. (2).
        context: how many context blocks stand at 1/32, and as many at 1/16; not the paper's, which has none.
    """

    def __init__(
        self,
        channels: int = 64,
        *,
        detail_stride: int = 2,
        temperature: float = TEMPERATURE,
        context: int = 0,
    ) -> None:
        super().__init__()
        if channels < SEMANTIC_CHANNELS or channels % 8:
            raise ValueError(f"BANet: channels must be a multiple of 8 and at least 64, got {channels}")
        if detail_stride not in (1, 2, 4):
            raise ValueError(f"BANet: detail_stride must be 1, 2 or 4, got {detail_stride}")
        if not temperature > 0:
            raise ValueError(f"BANet: temperature must be positive, got {temperature}")
        if context < 0:
            raise ValueError(f"BANet: context must be 0 or more, got {context}")
        self.channels, self.detail_stride, self.temperature = channels, detail_stride, temperature
        self.context = context
        self.semantic = SemanticBranch(channels, context)
        self.project = nn.Conv2d(SEMANTIC_CHANNELS, 1, 1)
        self.detail = nn.Sequential(
            *conv_bn(4, DETAIL_CHANNELS, 5, stride=detail_stride), nn.ReLU(inplace=True)
        )
        self.fusion = FeatureFusion()
        self.head = nn.Conv2d(FUSION_CHANNELS, 1, 1)

    def forward(self, image: Tensor) -> BANetOutput:  # [N, 3, H, W] normalised by MEAN and STD
        height, width = image.shape[-2:]
        image = pad_to_multiple(image, COARSEST_STRIDE)
        semantic = self.semantic(image)  # [N, 64, H/4, W/4]
        logits = self.project(semantic)  # [N, 1, H/4, W/4]
        guided = ops.boundary_attention(logits, image, temperature=self.temperature)  # [N, 4, H, W]
        alpha = upsample(self.matte(semantic, guided), self.detail_stride)  # [N, 1, H, W]
        return BANetOutput(
            alpha[..., :height, :width], guided[:, 3:, :height, :width], logits / self.temperature
        )

    def matte(self, semantic: Tensor, guided: Tensor) -> Tensor:
        """Features [N, 64, H/4, W/4], image with attention map [N, 4, H, W] -> the matte's logits
        [N, 1, H/stride, W/stride]."""
        detail = self.detail(guided)  # [N, 16, H/stride, W/stride]
        fused = self.fusion(upsample(semantic, 4 // self.detail_stride), detail)
        logits: Tensor = self.head(fused)
        return logits


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear, half-pixel centres."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until both sides are multiples of ``multiple``."""
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image

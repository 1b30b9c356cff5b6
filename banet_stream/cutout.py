"""The subject alone: its own colours, and alpha, where there is no background to put behind it.

Alpha is straight (not premultiplied): colours are the subject's own also where it is thin. Where it is not
at all they continue it smoothly, for encoders' sake; nothing of the old background is in them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from . import ops
from .frame import AnyFrame
from .reference import YuvScale, quantise, shrink_to_chroma

# Colours are divided by cover at this depth: at 8 bits thin edges would come out in steps.
WORKING_DEPTH = 12
# Covers this small leave colour to the surroundings: one step of an 8-bit alpha.
HARDLY = 1 / 255
# The fill starts from means of squares of this side.
FILL_SQUARE = 8


def cut_out(frame: AnyFrame, alpha: Tensor) -> AnyFrame:
    """The frame with decontaminated colours and its alpha at full size.

    Args:
        alpha: [h, w] float32 in 0..1 at network size.
    """
    shift = WORKING_DEPTH - frame.format.depth
    planes = [plane.to(torch.int16) << shift for plane in frame.planes]
    subsampling = frame.format.subsampling
    nothing = [torch.zeros_like(plane) for plane in planes]
    # Before a background of zeros a composite is colour times cover.
    weighted = ops.composite(planes, alpha, nothing, depth=WORKING_DEPTH, subsampling=subsampling)
    cover = ops.upsample_alpha(alpha, planes[0], depth=WORKING_DEPTH)
    chroma_cover = shrink_to_chroma(cover, subsampling)
    scale = YuvScale.of(frame.colour.full_range, WORKING_DEPTH)
    straight = []
    for plane, own, neutral in zip(
        weighted, (cover, chroma_cover, chroma_cover), (scale.black, scale.grey, scale.grey), strict=True
    ):
        colours = divide(plane.float(), own, neutral) / 2**shift
        straight.append(quantise(colours, frame.format.depth))
    return replace(frame, planes=straight, alpha=cover)


def divide(weighted: Tensor, cover: Tensor, neutral: float) -> Tensor:
    """[H, W] colour times cover, and cover in 0..1 -> colour, exact where cover is 1."""
    fill = continue_colours(weighted, cover, neutral)
    share = HARDLY * (1 - cover)
    return (weighted + share * fill) / (cover + share)


def continue_colours(weighted: Tensor, cover: Tensor, neutral: float) -> Tensor:
    """[H, W] colours that carry the subject's on into where there is none: means over ever larger squares,
    each filling the holes of the finer one. ``neutral``: where there is no subject in the whole frame.

    Where cover is thin, some of the old background is left in the colour: less than half does not count.
    """
    sure = (2 * cover - 1).clamp(min=0)
    level = F.avg_pool2d(torch.stack([weighted * sure, cover * sure])[None], FILL_SQUARE, ceil_mode=True)
    levels = [level]
    while max(level.shape[2:]) > 1:
        level = F.avg_pool2d(level, 2, ceil_mode=True)
        levels.append(level)
    filled = torch.full((1, 1, 1, 1), neutral, device=weighted.device)
    for level in reversed(levels):
        coarse = F.interpolate(filled, level.shape[2:], mode="bilinear", align_corners=False)
        filled = (level[:, :1] + HARDLY * coarse) / (level[:, 1:] + HARDLY)
    return F.interpolate(filled, weighted.shape, mode="bilinear", align_corners=False)[0, 0]

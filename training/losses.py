"""The paper's losses: segmentation (eq. 3), boundary attention (4), refine (5-7), and their sum (8)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from banet_stream import ops
from banet_stream.network import ATTENTION_STRIDE, BANetOutput

from .baselines.common import PlainOutput
from .data import Prepared

# Eq. (8): alpha and beta. Its gamma is the configuration's refine_weight: 0 in stage one, 0.1 in stage two.
SEGMENTATION_WEIGHT = 0.6
BOUNDARY_WEIGHT = 0.3
# Eq. (6): lambda, and eq. (7): gamma_1, gamma_2.
BALANCE, DIRECTION_WEIGHT, MAGNITUDE_WEIGHT = 1.5, 0.5, 0.5
# What shows less of a class than this says nothing about its overlap.
SMALLEST_SHARE = 0.01


def total(
    output: BANetOutput | PlainOutput,
    batch: Prepared,
    *,
    refine_weight: float = 0.0,
    overlap_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts, each a mean over the pixels that count.

    The attention map is judged where it is predicted, at 1/4, against the averaged target: upsampling it
    first would cost sixteen times as much and say nothing new about a map this smooth. Networks without
    such a map (the baselines) are not asked for one.

    Args:
        output: of the network.
        batch: what it should have been.
        refine_weight: gamma of eq. (8); with 0 the refine loss is not computed.
        overlap_weight: of ``jaccard``; not the paper's.
    """
    segmentation = cross_entropy(output.alpha, batch.matte, batch.weight)
    loss, terms = SEGMENTATION_WEIGHT * segmentation, {"segmentation": segmentation.detach()}
    if isinstance(output, BANetOutput):
        coarse, counts = (F.avg_pool2d(x, ATTENTION_STRIDE) for x in (batch.boundary, batch.weight))
        attention = cross_entropy(output.boundary_logits, coarse, counts)
        loss = loss + BOUNDARY_WEIGHT * attention
        terms["boundary"] = attention.detach()
    if overlap_weight:
        overlap = jaccard(output.alpha, batch.matte, batch.weight)
        loss = loss + overlap_weight * overlap
        terms["overlap"] = overlap.detach()
    if refine_weight:
        refine = ops.refine_loss(
            batch.picture,
            output.alpha.float().sigmoid(),
            batch.boundary * batch.weight,
            balance=BALANCE,
            direction_weight=DIRECTION_WEIGHT,
            magnitude_weight=MAGNITUDE_WEIGHT,
        )
        loss = loss + refine_weight * refine
        terms["refine"] = refine.detach()
    return loss, terms


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The mean binary cross-entropy, pixel by pixel ``weight`` times; all [N, 1, H, W]."""
    each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1)


def jaccard(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """One minus the intersection over union, a mean over the pictures and over person and background: what
    mIoU counts, with a gradient, and least where the matte is the target, soft or hard (Wang et al. 2023,
    Jaccard metric losses). All [N, 1, H, W].

    A class that a picture hardly shows has no overlap to speak of and is left out.
    """
    alpha = logits.float().sigmoid()
    apart = ((alpha - target).abs() * weight).sum((1, 2, 3))
    losses, counts = [], []
    for found, true in ((alpha, target), (1 - alpha, 1 - target)):
        both = ((found + true) * weight).sum((1, 2, 3))  # twice the intersection, and what is apart
        shown = (true * weight).sum((1, 2, 3)) > SMALLEST_SHARE * weight.sum((1, 2, 3))
        losses.append(2 * apart / (both + apart).clamp(min=1) * shown)
        counts.append(shown)
    return torch.stack(losses).sum() / torch.stack(counts).sum().clamp(min=1)

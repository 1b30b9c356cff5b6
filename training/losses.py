"""The losses of stage one: segmentation (eq. 3) and boundary attention (eq. 4), weighted as in eq. (8)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from banet_stream.network import BANetOutput

# Eq. (8): alpha, beta. Its gamma belongs to the refine loss of stage two, which is not here yet.
SEGMENTATION_WEIGHT = 0.6
BOUNDARY_WEIGHT = 0.3
# The attention map is predicted at 1/4 of the picture.
ATTENTION_STRIDE = 4


def total(output: BANetOutput, matte: Tensor, boundary: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts, each a mean over all pixels. ``matte``, ``boundary``: [N, 1, H, W] in 0..1.

    The attention map is judged where it is predicted, at 1/4, against the averaged target: upsampling it
    first would cost sixteen times as much and say nothing new about a map this smooth.
    """
    segmentation = F.binary_cross_entropy_with_logits(output.alpha.float(), matte)
    coarse = F.avg_pool2d(boundary, ATTENTION_STRIDE)
    attention = F.binary_cross_entropy_with_logits(output.boundary_logits.float(), coarse)
    loss = SEGMENTATION_WEIGHT * segmentation + BOUNDARY_WEIGHT * attention
    return loss, {"segmentation": segmentation.detach(), "boundary": attention.detach()}

"""The losses of stage one: segmentation (eq. 3) and boundary attention (eq. 4), weighted as in eq. (8)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from banet_stream.network import BANetOutput

# Eq. (8): alpha, beta.
SEGMENTATION_WEIGHT = 0.6
BOUNDARY_WEIGHT = 0.3


def total(output: BANetOutput, matte: Tensor, boundary: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts. ``matte``, ``boundary``: [N, 1, H, W] in 0..1.

    The attention map is judged at 1/4, where it is predicted: the target is averaged down, which equals
    judging the upsampled map at a sixteenth of the cost.
    """
    segmentation = F.binary_cross_entropy_with_logits(output.alpha.float(), matte)
    coarse = F.avg_pool2d(boundary, 4)
    attention = F.binary_cross_entropy_with_logits(output.boundary_logits.float(), coarse)
    loss = SEGMENTATION_WEIGHT * segmentation + BOUNDARY_WEIGHT * attention
    return loss, {"segmentation": segmentation.detach(), "boundary": attention.detach()}

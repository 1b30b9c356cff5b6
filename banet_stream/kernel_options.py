"""What the kernels' callers share, compiled and CuPy alike; needs neither."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference


def is_channels_last(image: Tensor) -> bool:
    return image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()


def alpha_options(upsampling: str) -> tuple[bool, int, float, float, float]:
    return (
        upsampling == "guided",
        reference.GUIDED_RADIUS,
        reference.GUIDED_EPSILON,
        reference.ALPHA_FLOOR,
        reference.ALPHA_CEILING,
    )


def colour_options(alpha: Tensor) -> tuple[int, int, int]:
    """Height and width at which local colours are found, and how far their windows reach there."""
    size = reference.colour_size(alpha)
    return *size, reference.colour_reach(size)


def filter_options() -> tuple[int, float, float, float, float, int, float, float]:
    return (
        reference.FILTER_RADIUS,
        reference.FILTER_EPSILON,
        reference.FILTER_LEAST_VARIANCE,
        *reference.FILTER_TRUST,
        reference.FILTER_REACH,
        reference.FILTER_UNSURE,
        reference.FILTER_TINY,
    )


def packed(plane: Tensor) -> Tensor:
    """Rows may lie apart (decoders pad them), columns not; a single one has no neighbour."""
    return plane if plane.stride(1) == 1 or plane.shape[1] == 1 else plane.contiguous()

"""Accuracy of mattes against hand-made masks. Everything here is numpy and OpenCV: no network, no torch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Width of the band that boundary IoU looks at, as a share of the picture's diagonal
# (Cheng et al., "Boundary IoU", CVPR 2021, section 5.1).
BOUNDARY_IOU_WIDTH = 0.02


class MeanIoU:
    """mIoU in percent: the mean of the person's and the background's IoU, counted over a whole set.

    Mattes and masks are split at one half.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((2, 2), np.int64)  # [truth, prediction]

    def add(self, alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
        """Counts one picture ([H, W] in 0..1, [H, W] in 0..255) and returns its own mIoU."""
        index = 2 * (matte >= 128).astype(np.int64) + (alpha >= 0.5)
        counts = np.bincount(index.ravel(), minlength=4).reshape(2, 2)
        self.counts += counts
        return mean_iou(counts)

    @property
    def value(self) -> float:
        return mean_iou(self.counts)


def mean_iou(counts: NDArray[np.int64]) -> float:
    """From [truth, prediction] counts; a class that is in neither truth nor prediction does not count."""
    intersection = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - intersection
    return float(100 * (intersection[union > 0] / union[union > 0]).mean())


def boundary_iou(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """Boundary IoU of one picture in 0..1 ([H, W] in 0..1, [H, W] in 0..255).

    IoU of the inner bands along both masks' boundaries, 2 % of the diagonal wide. The picture's own edge
    counts as boundary, as in the authors' program. Where neither mask holds a pixel, they agree: 1.
    """
    truth, found = inner_band(matte >= 128), inner_band(alpha >= 0.5)
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def inner_band(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask that lie within 2 % of the diagonal (Chebyshev) of a pixel outside it."""
    width = max(1, round(BOUNDARY_IOU_WIDTH * float(np.hypot(*mask.shape))))
    padded = np.pad(mask, 1).astype(np.uint8)  # beyond the picture there is no person
    core = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    band: NDArray[np.bool_] = mask & (core[1:-1, 1:-1] == 0)
    return band


def mad(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """Mean absolute difference of one picture's mattes, both in 0..1."""
    return float(np.abs(difference(alpha, matte)).mean())


def mse(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """Mean squared difference of one picture's mattes, both in 0..1."""
    return float(np.square(difference(alpha, matte)).mean())


def difference(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> NDArray[np.float64]:
    return alpha.astype(np.float64) - matte / 255.0

"""Accuracy of mattes against hand-made masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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

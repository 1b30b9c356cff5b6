"""Accuracy of mattes against hand-made masks. Everything here is numpy and OpenCV: no network, no torch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Width of the band that boundary IoU looks at, as a share of the picture's diagonal
# (Cheng et al., "Boundary IoU", CVPR 2021, section 5.1).
BOUNDARY_IOU_WIDTH = 0.02
# Rhemann et al. 2009: the Gaussian of Grad, and where its tail is cut; the levels and tolerance of Conn.
GRADIENT_SIGMA, GRADIENT_CUT = 1.4, 1e-2
CONNECTIVITY_STEPS, CONNECTIVITY_TOLERANCE = 10, 0.15


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


def sad(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """Sum of absolute differences of one picture's mattes in 0..1, in thousands of pixels."""
    return float(np.abs(difference(alpha, matte)).sum()) / 1000


def gradient_error(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """Grad (Rhemann et al., "A Perceptually Motivated Online Benchmark", CVPR 2009), in thousands.

    The sum over the picture of the squared difference of the mattes' gradient magnitudes, the gradients
    taken with derivatives of a Gaussian.
    """
    found, truth = gaussian_gradient(alpha.astype(np.float64)), gaussian_gradient(matte / 255.0)
    return float(np.square(found - truth).sum()) / 1000


def gaussian_gradient(matte: NDArray[np.float64]) -> NDArray[np.float64]:
    """[H, W] -> gradient magnitude: filters of unit length, the edge pixel repeats beyond the border."""
    reach = GRADIENT_SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * GRADIENT_SIGMA * GRADIENT_CUT))
    x = np.arange(-np.ceil(reach), np.ceil(reach) + 1)
    smooth = np.exp(-(x**2) / (2 * GRADIENT_SIGMA**2))
    slope = x * smooth
    smooth, slope = (taps / np.sqrt(np.square(taps).sum()) for taps in (smooth, slope))
    across = cv2.sepFilter2D(matte, cv2.CV_64F, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(matte, cv2.CV_64F, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down)


def connectivity_error(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """Conn (Rhemann et al. 2009), in thousands.

    A pixel's degree of connectivity falls with how far its alpha lies above the highest level (in steps
    of 0.1) at which it hangs together with the largest area that both mattes have at that level.
    """
    found, truth = alpha.astype(np.float64), matte / 255.0
    level = np.full(truth.shape, -1.0)
    for step in range(1, CONNECTIVITY_STEPS + 1):
        threshold = step / CONNECTIVITY_STEPS
        common = ((found >= threshold) & (truth >= threshold)).astype(np.uint8)
        connected = largest_component(common)
        level[(level < 0) & ~connected] = (step - 1) / CONNECTIVITY_STEPS
    level[level < 0] = 1
    degrees = []
    for values in (found, truth):
        distance = values - level
        degrees.append(1 - distance * (distance >= CONNECTIVITY_TOLERANCE))
    return float(np.abs(degrees[0] - degrees[1]).sum()) / 1000


def largest_component(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The largest area of [H, W] 0 or 1 that hangs together over pixels' sides; the first one of equals."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return np.zeros(mask.shape, np.bool_)
    largest: NDArray[np.bool_] = labels == 1 + int(areas.argmax())
    return largest


def mad_in_band(alpha: NDArray[np.float32], matte: NDArray[np.uint8]) -> float:
    """MAD over the truth's boundary band: within 2 % of the diagonal of the mask's edge, on either side,
    and wherever the truth is soft. 0 where there is no band."""
    person = (matte >= 128).astype(np.uint8)
    width = max(1, round(BOUNDARY_IOU_WIDTH * float(np.hypot(*matte.shape))))
    square = np.ones((3, 3), np.uint8)
    band = cv2.dilate(person, square, iterations=width) != cv2.erode(person, square, iterations=width)
    band |= (matte > 0) & (matte < 255)
    return float(np.abs(difference(alpha, matte))[band].mean()) if band.any() else 0.0


def dtssd(
    alpha: NDArray[np.float32],
    matte: NDArray[np.uint8],
    alpha_before: NDArray[np.float32],
    matte_before: NDArray[np.uint8],
) -> float:
    """dtSSD of two successive frames (Erofeev et al., BMVC 2015), as video matting reports it: 100 times the
    root mean square, over the pixels, of how differently the mattes changed."""
    change = alpha.astype(np.float64) - alpha_before
    wanted = (matte.astype(np.float64) - matte_before) / 255.0
    return 100 * float(np.sqrt(np.square(change - wanted).mean()))


# Every metric of one picture, by name; the set's own mIoU counts all pixels together (MeanIoU).
PER_PICTURE = {
    "boundary_iou": boundary_iou,
    "mad": mad,
    "mse": mse,
    "sad": sad,
    "grad": gradient_error,
    "conn": connectivity_error,
    "mad_band": mad_in_band,
}

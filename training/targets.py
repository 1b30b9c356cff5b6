"""Boundary targets: no annotation needed beyond the matte (paper, eq. 1)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# W of eq. (1) and the size it was given for.
BOUNDARY_WIDTH = 50.0
PAPER_SIZE = 512.0


def boundary(matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The boundary area of a matte [H, W] (255 = person): 255 inside, 0 outside.

    Canny edges of the binary person mask, dilated by K = S_portrait / (S_portrait + S_background) * W,
    W scaled from the paper's 512 px to this picture's size.
    """
    person = np.where(matte >= 128, np.uint8(255), np.uint8(0))
    edges = cv2.Canny(person, 100, 200)
    size = (person.shape[0] * person.shape[1]) ** 0.5
    kernel = round(np.count_nonzero(person) / person.size * BOUNDARY_WIDTH * size / PAPER_SIZE)
    kernel = max(3, kernel)  # below 3 a dilation would do nothing
    return cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (kernel, kernel))).astype(np.uint8)

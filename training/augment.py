"""Augmentation on uint8 pictures: geometry, compositing over other backgrounds, light and camera faults."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]

# How often a set's people are cut out and put before another background. Sets not named here never are:
# that needs mattes one has looked at.
COMPOSITE_CHANCE = {
    "portraits-train": 0.12,
    "fashion-train": 0.2,
    "fashion-soft": 0.1,
    "people-train": 0.0,  # their masks have holes
    "video-frames": 0.25,
    "studio-train": 1.0,
}
# How often light and camera faults are left out: a small network does not learn all of them.
PLAIN_CHANCE = 0.6
# Width / height of training crops: portrait, square, webcam.
ASPECTS = (0.75, 0.75, 0.75, 1.0, 1.34)
SMALLEST_SIDE = 64


def composite_chance(name: str) -> float:
    return COMPOSITE_CHANCE.get(name, 0.0)


# When crops grow, as shares of a run.
GROWTH_BEGINS, GROWTH_ENDS = 0.6, 0.8


@dataclass(frozen=True)
class Shapes:
    """The crop of an iteration: side^2 pixels in a random aspect. Small is three times as fast and teaches
    what a person is: the side stays at ``start`` for most of a run, grows, and ends at ``end``."""

    start: int
    end: int
    iterations: int

    def __call__(self, rng: np.random.Generator, iteration: int) -> tuple[int, int]:  # height, width
        grown = (iteration / self.iterations - GROWTH_BEGINS) / (GROWTH_ENDS - GROWTH_BEGINS)
        side = self.start + (self.end - self.start) * min(1.0, max(0.0, grown))
        root = ASPECTS[rng.integers(len(ASPECTS))] ** 0.5
        return multiple_of_32(side / root), multiple_of_32(side * root)


def multiple_of_32(side: float) -> int:  # what the network takes without padding
    return max(SMALLEST_SIDE, round(side / 32) * 32)


def warp(
    image: Array, matte: Array, height: int, width: int, *, rng: np.random.Generator, cover_only: bool = False
) -> tuple[Array, Array]:
    """A random similarity: scale, rotation, shift and flip; what lies outside repeats the edge.

    Args:
        image: [h, w, 3] uint8.
        matte: [h, w] uint8.
        height, width: of the crop that is returned.
        rng: decides.
        cover_only: always fill the crop.
    """
    matrix, scale = similarity(matte.shape[0], matte.shape[1], height, width, rng=rng, cover_only=cover_only)
    if scale < 0.6:  # warpAffine does not filter: shrink first
        half = (matte.shape[1] // 2, matte.shape[0] // 2)
        x, y = matte.shape[1] / half[0], matte.shape[0] / half[1]
        image, matte = (
            cv2.resize(p, half, interpolation=cv2.INTER_AREA).astype(np.uint8) for p in (image, matte)
        )
        matrix = matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return move(image, matrix, height, width), move(matte, matrix, height, width)


def similarity(
    rows: int, columns: int, height: int, width: int, *, rng: np.random.Generator, cover_only: bool
) -> tuple[NDArray[np.float64], float]:
    """A random [2, 3] map from a picture's pixels to a crop's, and its scale."""
    # Mostly filling the crop (and zooming in), sometimes smaller than it: people far from the camera.
    if cover_only or rng.random() < 0.75:
        scale = max(height / rows, width / columns) * rng.uniform(0.95, 1.2)
    else:
        scale = min(height / rows, width / columns) * rng.uniform(0.6, 1.05)
    angle = rng.normal(0, 5) if rng.random() < 0.95 else rng.uniform(-45, 45)  # 45: the paper's range
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), angle, scale).astype(np.float64)
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, columns], [0, 1, 0], [0, 0, 1]], float)
    slack = [abs(columns * scale - width) / 2, abs(rows * scale - height) / 2]
    matrix[:, 2] += [width / 2 - columns / 2, height / 2 - rows / 2]
    matrix[:, 2] += rng.uniform(-1, 1, 2) * slack
    return matrix, scale


def move(
    picture: Array,
    matrix: NDArray[np.float64],
    height: int,
    width: int,
    *,
    border: int = cv2.BORDER_REPLICATE,
) -> Array:
    moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
    return moved.astype(np.uint8, copy=False)


def composite(
    image: Array, matte: Array, background: Array, height: int, width: int, *, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Cuts the person out and stands them, at a random size, on the lower edge before ``background``.

    Args:
        image: [h, w, 3] uint8.
        matte: [h, w] uint8.
        background: [any, any, 3] uint8.
        height, width: of the crop that is returned.
        rng: decides.
    """
    matte = cv2.erode(matte, np.ones((3, 3), np.uint8)).astype(np.uint8)  # its rim holds the old background
    if (matte >= 254).sum() + (matte <= 1).sum() > 0.97 * matte.size:  # a hard mask: soften its edge
        matte = cv2.GaussianBlur(matte, (3, 3), 0).astype(np.uint8)
    rows, columns = matte.shape
    scale = rng.uniform(0.55, 1.25) * height / rows
    flip = -1.0 if rng.random() < 0.5 else 1.0
    centre = rng.uniform(0.2, 0.8) * width
    drop = rng.uniform(0, 0.15) * height  # how far the picture's lower edge lies below the crop's
    matrix = np.array(
        [[flip * scale, 0, centre - flip * scale * columns / 2], [0, scale, height + drop - scale * rows]]
    )
    person = move(image, matrix, height, width)
    alpha = move(matte, matrix, height, width, border=cv2.BORDER_CONSTANT)
    weight = alpha[..., None].astype(np.float32) / 255
    mixed = person * weight + room_for(background, height, width, rng) * (1 - weight)
    return np.round(mixed).astype(np.uint8), alpha


def room_for(background: Array, height: int, width: int, rng: np.random.Generator) -> Array:
    """A crop of a background, sometimes out of focus, sometimes lit otherwise."""
    nobody = np.zeros(background.shape[:2], np.uint8)
    room, _ = warp(background, nobody, height, width, rng=rng, cover_only=True)
    if rng.random() < 0.5:  # lenses blur what is far
        room = cv2.GaussianBlur(room, (0, 0), rng.uniform(0.5, 3.0)).astype(np.uint8)
    if rng.random() < 0.5:  # and rooms are lit otherwise than studios
        gain = rng.uniform(0.5, 1.2) * (1 + rng.normal(0, 0.08, 3))
        room = np.clip(room * gain, 0, 255).astype(np.uint8)
    return room


def photometric(image: Array, rng: np.random.Generator) -> Array:
    """Exposure, contrast, gamma, colour cast, saturation, blur, sensor noise, compression."""
    if rng.random() < PLAIN_CHANCE:
        return image
    values = np.arange(256, dtype=np.float32) / 255
    gamma, contrast = np.exp(rng.normal(0, 0.15)), np.exp(rng.normal(0, 0.12))
    lightness = rng.uniform(0.7, 1.3)  # the paper's range
    cast = 1 + rng.normal(0, 0.04, 3)
    curves = ((values**gamma - 0.5) * contrast + 0.5)[:, None] * (lightness * cast)
    image = cv2.LUT(image, np.clip(curves * 255, 0, 255).astype(np.uint8)[:, None]).astype(np.uint8)
    if rng.random() < 0.3:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        keep = 0.0 if rng.random() < 0.2 else rng.uniform(0.3, 1.6)
        image = cv2.addWeighted(image, keep, grey, 1 - keep, 0).astype(np.uint8)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)).astype(np.uint8)
    if rng.random() < 0.1:  # motion blur
        length = int(rng.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum()).astype(np.uint8)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(2, 10), image.shape).astype(np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))])
        unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        assert unpacked is not None  # what OpenCV packed it unpacks
        image = unpacked.astype(np.uint8)
    return image

"""What hides part of people, such as a table, and what they wear or hold: patterns that are part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .pairs import Array, Sample

# A table's upper edge: how far down the person, in degrees of slope, and how often it ends within the crop.
TABLE_EDGE, TABLE_SLOPE, TABLE_ENDS_CHANCE = (0.6, 0.95), 4.0, 0.25
# A pattern lies lower than a head, by this share of the person's height; its sides are shares of their size.
BELOW_HEAD, PATTERN_SIDES = 0.4, (0.1, 0.5)
# Bits of a pixel's fraction in cv2's coordinates.
FRACTION_BITS = 4

# The size of a surface -> a crop of some background, uint8 [height, width, 3].
Room = Callable[[int, int], Array]


def table(sample: Sample, room: Room, *, rng: np.random.Generator) -> Sample:
    """Something straight across a person's lower part, and what is below it. Without one, nothing changes."""
    height, width = sample.matte.shape
    rows = np.flatnonzero((sample.matte >= 250).any(1))
    if not len(rows):
        return sample
    middle = rows[0] + rng.uniform(*TABLE_EDGE) * (rows[-1] + 1 - rows[0])
    slope = np.tan(np.deg2rad(rng.normal(0, TABLE_SLOPE)))
    left, right = -0.1 * width, 1.1 * width
    if rng.random() < TABLE_ENDS_CHANCE:
        end = rng.uniform(0.3, 0.7) * width
        left, right = (left, end) if rng.random() < 0.5 else (end, right)
    corners = [(x, middle + slope * (x - width / 2)) for x in (left, right)]
    below = [(x + rng.normal(0, 0.1) * width, 1.1 * height) for x in (right, left)]
    cover = polygon(np.array([*corners, *below]), height, width) / 255
    image = blend(sample.image, surface(height, width, room, rng=rng), cover)
    matte = np.round(sample.matte * (1 - cover)).astype(np.uint8)
    weight = sample.weight
    if weight is not None:  # nobody is there, surely
        weight = np.maximum(weight, np.where(cover > 0.5, np.uint8(255), np.uint8(0)))
    return Sample(image, matte, weight)


def pattern(sample: Sample, room: Room, *, rng: np.random.Generator) -> Sample:
    """A print on clothes, or something held before them: part of the person. Without one, nothing changes."""
    height, width = sample.matte.shape
    rows, columns = np.nonzero(sample.matte >= 250)
    if not len(rows):
        return sample
    top, tall = rows.min(), np.ptp(rows) + 1
    body = np.flatnonzero(rows >= top + BELOW_HEAD * tall)
    if not len(body):
        return sample
    at = rng.choice(body)
    sides = rng.uniform(*PATTERN_SIDES, 2) * (np.ptp(columns) + 1, tall)
    box = cv2.boxPoints(((float(columns[at]), float(rows[at])), tuple(sides.tolist()), rng.uniform(0, 90)))
    cover = polygon(box.astype(float), height, width) / 255 * (sample.matte / 255) * rng.uniform(0.6, 1)
    return sample._replace(image=blend(sample.image, surface(height, width, room, rng=rng), cover))


def surface(height: int, width: int, room: Room, *, rng: np.random.Generator) -> Array:
    """Part of a background, stripes, or one colour that light falls on unevenly."""
    kind = rng.random()
    if kind < 0.5:
        return room(height, width)
    # Some grey, and mostly a little of a colour.
    first, second = rng.uniform(0, 255, (2, 1)) + rng.normal(0, rng.choice([5, 20, 60]), (2, 3))
    if kind < 0.75:
        second = first + rng.normal(0, 15, 3)
        period = 2.0 * height
    else:
        period = height * rng.uniform(0.03, 0.2)
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width]
    wave = 0.5 + 0.5 * np.sin(
        (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + rng.uniform(0, 6)
    )
    made = first + (second - first) * wave[..., None] + rng.normal(0, rng.uniform(0, 5), (height, width, 3))
    return np.clip(np.round(made), 0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def polygon(corners: NDArray[np.float64], height: int, width: int) -> Array:
    """[height, width] uint8: 255 inside, with a soft outline."""
    filled = np.zeros((height, width), np.uint8)
    exact = np.round(corners * (1 << FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(filled, [exact], (255,), cv2.LINE_AA, FRACTION_BITS)
    return cv2.GaussianBlur(filled, (3, 3), 0).astype(np.uint8, copy=False)


def blend(image: Array, other: Array, cover: NDArray[np.floating[Any]]) -> Array:
    """``other`` where ``cover`` [H, W] is 1, ``image`` where it is 0."""
    shares = cover[..., None]
    return np.round(other * shares + image * (1 - shares)).astype(np.uint8)

"""Augmentation on uint8 pictures: geometry, compositing over other backgrounds, light and camera faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import occlude
from .pairs import Array, Sample
from .sets import BACKGROUNDS, unsoftened

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
# Width / height of training crops: portrait, square, webcam, wide; the paper's portraits are 600x800.
ASPECTS = {"best": (0.75, 0.75, 0.75, 1.0, 1.34, 1.78), "paper": (0.75,)}
# In crops wider than this portraits show little of themselves: people who may be cut out at all are so at
# least this often.
WIDE, WIDE_COMPOSITE_CHANCE = 1.5, 0.5
SMALLEST_SIDE = 64
# The paper's ranges (section 4): degrees, and factors of lightness.
LARGEST_ANGLE = 45.0
LIGHTNESS = (0.7, 1.3)
# How often somebody put before another background is not alone, where no group is made.
COMPANY_CHANCE = 0.2
# How large somebody put before another background is: their picture's height, in heights of the crop; the
# second pair is of people who are seen down to their feet, so that crops end at their knees, or waist, too.
SCALES, FULL_LENGTH_SCALES = (0.55, 1.25), (0.55, 2.2)
# The same of a group, and how many times a picture is drawn to find somebody whom it does not cut off at both
# sides, who would have to fill the crop.
GROUP_SCALES, GROUP_TRIES = (0.35, 1.0), 5
# How often somebody who is seen down to their feet stands above the crop's lower edge.
LIFTED_CHANCE = 0.5
# How often somebody of a set whose people may be cut out sits at a table, and how often a pattern is on them.
TABLE_CHANCE, PATTERN_CHANCE = 0.03, 0.07
# How often a picture is shown whole, between bars.
BARS_CHANCE = 0.06
# Pictures taller than this, as a multiple of their width, show people from head to foot: their upper third
# makes a portrait, and more of them one to the waist or to the knees.
FULL_LENGTH = 1.4
# How often a picture is seen from near: faces that fill it.
NEAR_CHANCE = 0.12
# Turned further than this, a picture is not enlarged until it fills the crop: little of it would be left.
LARGEST_COVERED_ANGLE = 12.0


def composite_chance(name: str) -> float:
    return COMPOSITE_CHANCE.get(unsoftened(name), 0.0)


# When crops grow, as shares of a run.
GROWTH_BEGINS, GROWTH_ENDS = 0.6, 0.8


@dataclass(frozen=True)
class Shapes:
    """The crop of an iteration: side^2 pixels in a random aspect. Small is three times as fast and teaches
    what a person is: the side stays at ``start`` for most of a run, grows, and ends at ``end``."""

    start: int
    end: int
    iterations: int
    augmentation: str = "best"

    def __call__(self, rng: np.random.Generator, iteration: int) -> tuple[int, int]:  # height, width
        grown = (iteration / self.iterations - GROWTH_BEGINS) / (GROWTH_ENDS - GROWTH_BEGINS)
        side = self.start + (self.end - self.start) * min(1.0, max(0.0, grown))
        aspects = ASPECTS[self.augmentation]
        root = aspects[rng.integers(len(aspects))] ** 0.5
        return multiple_of_32(side / root), multiple_of_32(side * root)


def multiple_of_32(side: float) -> int:  # what the network takes without padding
    return max(SMALLEST_SIDE, round(side / 32) * 32)


# A set's name, how to draw a picture of a set, the crop's size -> a training sample.
Augmentation = Callable[..., Sample]


def best(
    name: str,
    draw: Callable[[str], Sample],
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    composites: float = 1.0,
    occluders: float = 0.0,
    groups: float = 0.0,
) -> Sample:
    """Geometry, other backgrounds, light and camera faults.

    Args:
        name: of the set that the sample is of: it decides whether people may be cut out.
        draw: gives any picture of a set.
        height, width: of the crop that is returned.
        rng: decides.
        composites: makes ``COMPOSITE_CHANCE`` so many times as large.
        occluders: makes ``TABLE_CHANCE`` and ``PATTERN_CHANCE`` so many times as large.
        groups: the share of those put before another background who are one of a group.
    """
    chance = composites * composite_chance(name)
    if chance and width > WIDE * height:
        chance = max(chance, WIDE_COMPOSITE_CHANCE)
    if rng.random() >= chance:
        moved = warp(draw(name), height, width, rng=rng)
    elif groups and rng.random() < groups:
        moved = group(lambda: draw(name), draw(BACKGROUNDS).image, height, width, rng=rng)
    else:
        people = [draw(name) for _ in range(2 if rng.random() < COMPANY_CHANCE else 1)]
        moved = composite(people, draw(BACKGROUNDS).image, height, width, rng=rng)
    if occluders and composite_chance(name):
        moved = occluded(
            moved, lambda h, w: room_for(draw(BACKGROUNDS).image, h, w, rng), rng=rng, occluders=occluders
        )
    return moved._replace(image=photometric(moved.image, rng))


def occluded(sample: Sample, room: occlude.Room, *, rng: np.random.Generator, occluders: float) -> Sample:
    """Now and then with a pattern on somebody, or a table before them."""
    if rng.random() < occluders * PATTERN_CHANCE:
        sample = occlude.pattern(sample, room, rng=rng)
    if rng.random() < occluders * TABLE_CHANCE:
        sample = occlude.table(sample, room, rng=rng)
    return sample


def paper(
    name: str,
    draw: Callable[[str], Sample],
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    composites: float = 0.0,
    occluders: float = 0.0,
    groups: float = 0.0,
) -> Sample:
    """The paper's: rotation, flip, lightness. What is turned in from outside is black, and nobody."""
    del composites, occluders, groups
    sample = draw(name)
    rows, columns = sample.matte.shape
    scale = max(height / rows, width / columns)
    view = View(scale, rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE), rng.random() < 0.5)
    moved = move_sample(sample, view, height, width, bars=(0, 0, 0))
    lit = moved.image * rng.uniform(*LIGHTNESS)
    return moved._replace(image=np.clip(lit, 0, 255).astype(np.uint8))


AUGMENTATIONS: dict[str, Augmentation] = {"best": best, "paper": paper}


@dataclass(frozen=True)
class View:
    """How a picture lies under a crop: enlarged, mirrored, turned, its centre shifted."""

    scale: float
    angle: float = 0.0  # degrees, counter-clockwise
    mirrored: bool = False
    shift: tuple[float, float] = (
        0.0,
        0.0,
    )  # of its centre from the crop's, in its own pixels: x, y

    def matrix(self, rows: int, columns: int, height: int, width: int) -> NDArray[np.float64]:
        """The [2, 3] map from the picture's pixels to the crop's."""
        x, y = (columns - 1) / 2 - self.shift[0], (rows - 1) / 2 - self.shift[1]
        matrix = cv2.getRotationMatrix2D((x, y), self.angle, self.scale).astype(np.float64)
        matrix[:, 2] += [(width - 1) / 2 - x, (height - 1) / 2 - y]
        if self.mirrored:
            matrix = matrix @ np.array([[-1, 0, columns - 1], [0, 1, 0], [0, 0, 1]], float)
        return matrix


def warp(
    sample: Sample, height: int, width: int, *, rng: np.random.Generator, cover_only: bool = False
) -> Sample:
    """A random view of a picture.

    Args:
        sample: of any size.
        height, width: of the crop that is returned.
        rng: decides.
        cover_only: always fill the crop.
    """
    rows, columns = sample.matte.shape
    if not cover_only and rng.random() < BARS_CHANCE:
        return between_bars(sample, height, width, rng=rng)
    if not cover_only and width / columns > height / rows and rng.random() < 0.5:
        # Narrower than the crop, such as a portrait in a webcam's: what is beside it is its mirror image.
        # Never so above: there the heads would meet.
        scale = height / rows * rng.uniform(1.0, 1.15)
        aside = (width / scale - columns) / 2 * rng.uniform(-1, 1)
        view = View(scale, 0.0, bool(rng.random() < 0.5), (aside, (rows - height / scale) / 2))
        return move_sample(sample, view, height, width)
    return move_sample(sample, covering(rows, columns, height, width, rng=rng), height, width)


def between_bars(sample: Sample, height: int, width: int, *, rng: np.random.Generator) -> Sample:
    """The whole picture, as a portrait is shown in a wide video: people far from the camera."""
    rows, columns = sample.matte.shape
    scale = min(height / rows, width / columns) * rng.uniform(0.6, 1.0)
    colour = (0, 0, 0) if rng.random() < 0.6 else tuple(rng.integers(0, 256, 3).tolist())
    slack = ((width / scale - columns) / 2, (height / scale - rows) / 2)
    shift = (float(slack[0] * rng.uniform(-1, 1)), float(slack[1] * rng.uniform(-1, 1)))
    return move_sample(sample, View(scale, 0.0, bool(rng.random() < 0.5), shift), height, width, bars=colour)


def covering(rows: int, columns: int, height: int, width: int, *, rng: np.random.Generator) -> View:
    """A view that fills the crop with the picture (but for the rare large angle)."""
    upright = rng.random() < 0.4
    angle = 0.0 if upright else rng.normal(0, 5)
    if rng.random() < 0.05:
        angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    # The crop's sides seen along the picture's: what of it the crop needs.
    turned = np.deg2rad(abs(angle) if abs(angle) <= LARGEST_COVERED_ANGLE else 0)
    across = width * np.cos(turned) + height * np.sin(turned)
    along = height * np.cos(turned) + width * np.sin(turned)
    closer = rows > FULL_LENGTH * columns and rng.random() < 0.3
    near = not closer and rng.random() < NEAR_CHANCE
    zoom = rng.uniform(1.2, 2.5 if closer else 1.8) if closer or near else rng.uniform(1.0, 1.2)
    scale = max(across / columns, along / rows) * zoom
    slack = ((columns - across / scale) / 2, (rows - along / scale) / 2)
    down = rng.uniform(0.6, 1) if closer else rng.uniform(-0.5, 1)  # heads are up there
    shift = (float(slack[0] * rng.uniform(-1, 1)), float(slack[1] * down))
    return View(float(scale), float(angle), bool(rng.random() < 0.5), shift)


def move_sample(
    sample: Sample, view: View, height: int, width: int, *, bars: tuple[int, ...] | None = None
) -> Sample:
    """The picture under a crop; around it its mirror image, or with ``bars`` (RGB) that colour and nobody."""
    rows, columns = sample.matte.shape
    matrix = view.matrix(rows, columns, height, width)
    if view.scale < 0.8:  # warpAffine does not filter: shrink first
        small = (max(1, round(columns * view.scale)), max(1, round(rows * view.scale)))
        x, y = columns / small[0], rows / small[1]
        weight = None if sample.weight is None else shrink(sample.weight, small)
        sample = Sample(shrink(sample.image, small), shrink(sample.matte, small), weight)
        matrix = matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])

    def moved(picture: Array, outside: tuple[int, ...]) -> Array:
        border = cv2.BORDER_REFLECT_101 if bars is None else cv2.BORDER_CONSTANT
        return move(picture, matrix, height, width, border=border, outside=outside)

    weight = None if sample.weight is None else moved(sample.weight, (255,))
    return Sample(moved(sample.image, bars or ()), moved(sample.matte, ()), weight)


def shrink(picture: Array, size: tuple[int, int]) -> Array:
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def move(
    picture: Array,
    matrix: NDArray[np.float64],
    height: int,
    width: int,
    *,
    border: int,
    outside: tuple[int, ...] = (),
) -> Array:
    moved = cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=outside
    )
    return moved.astype(np.uint8, copy=False)


def composite(
    people: Sequence[Sample], background: Array, height: int, width: int, *, rng: np.random.Generator
) -> Sample:
    """Cuts people out and stands them, each at a random size, before ``background``, one before the other.

    Args:
        people: of any size; the last one stands in front.
        background: [any, any, 3] uint8.
        height, width: of the crop that is returned.
        rng: decides.
    """
    room = room_for(background, height, width, rng)
    made = Sample(room, np.zeros((height, width), np.uint8))
    for person in people:
        made = stand_before(made, person, place(person.matte, height, width, rng=rng))
    return made


def group(
    draw: Callable[[], Sample], background: Array, height: int, width: int, *, rng: np.random.Generator
) -> Sample:
    """Two and more people side by side, the nearer ones larger and before the others, before ``background``.

    Args:
        draw: gives anybody.
        background: [any, any, 3] uint8.
        height, width: of the crop that is returned: the wider, the more people.
        rng: decides.
    """
    count = int(rng.integers(2, 4 + round(2 * width / height)))
    seats = (rng.permutation(count) + rng.uniform(0, 1, count)) / count
    scales = np.sort(rng.uniform(*GROUP_SCALES, count))
    made = Sample(room_for(background, height, width, rng), np.zeros((height, width), np.uint8))
    for seat, scale in zip(seats, scales, strict=True):
        for _ in range(GROUP_TRIES):
            person = draw()
            if not all(cut_off(person.matte >= 128)[:2]):
                view = place(person.matte, height, width, rng=rng, scale=float(scale), across=float(seat))
                made = stand_before(made, person, view)
                break
    return made


def cut_off(person: NDArray[np.bool_]) -> tuple[bool, bool, bool, bool]:
    """Where a picture's edge cuts people off: left, right, top, bottom."""
    rows, columns = person.shape
    left, right = (np.count_nonzero(person[:, column]) > 0.02 * rows for column in (0, -1))
    top, bottom = (np.count_nonzero(person[row]) > 0.02 * columns for row in (0, -1))
    return left, right, top, bottom


def stand_before(behind: Sample, sample: Sample, view: View) -> Sample:
    """Somebody, cut out of their picture, before a crop that may hold others."""
    height, width = behind.matte.shape
    matte = sample.matte
    matte = cv2.erode(matte, np.ones((3, 3), np.uint8)).astype(np.uint8)  # its rim holds the old background
    if (matte >= 254).sum() + (matte <= 1).sum() > 0.97 * matte.size:  # a hard mask: soften its edge
        matte = cv2.GaussianBlur(matte, (3, 3), 0).astype(np.uint8)
    cut = sample._replace(matte=matte)
    person = move_sample(cut, view, height, width, bars=(0, 0, 0))
    cover = person.matte.astype(np.float32) / 255
    image = occlude.blend(behind.image, person.image, cover)
    whole = person.matte + behind.matte * (1 - cover)
    known = [w for w in (person.weight, behind.weight) if w is not None]
    weight = np.minimum.reduce(known) if known else None
    return Sample(image, np.round(whole).astype(np.uint8), weight)


def place(
    matte: Array,
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    scale: float | None = None,
    across: float | None = None,
) -> View:
    """How somebody cut out may stand in a crop: so that no part of them that their picture cuts off ends in
    mid-air; mostly with their head in it; with their feet, where they are seen, sometimes above its edge.

    Args:
        matte: their picture's, [any, any] uint8.
        height, width: of the crop.
        rng: decides.
        scale: their picture's height, in heights of the crop, unless it has to be larger; drawn by default.
        across: their middle, in widths of the crop, unless their picture cuts them off; drawn by default.
    """
    rows, columns = matte.shape
    mirrored = bool(rng.random() < 0.5)
    person = (matte[:, ::-1] if mirrored else matte) >= 128
    left, right, top, bottom = cut_off(person)
    if scale is None:
        scale = rng.uniform(*(SCALES if top or bottom else FULL_LENGTH_SCALES))
    scale *= height / rows
    if left and right:
        scale = max(scale, width / columns)
    if top:
        scale = max(scale, height / rows)
    half = columns * scale / 2
    if left and right:
        x = width / 2 + (half - width / 2) * rng.uniform(-1, 1)
    elif left or right:
        inwards = half - rng.uniform(0, 0.2) * width  # the cut side on the crop's edge, or beyond it
        x = inwards if left else width - inwards
    else:
        x = (rng.uniform(0.2, 0.8) if across is None else across) * width
    above = height * rng.uniform(1, 1.15) - rows * scale  # where the picture's upper edge comes to lie
    head = scale * int(person.any(1).argmax())
    if top:
        above = -rng.uniform(0, 0.05) * height
    elif above + head < 0 and rng.random() < 0.85:
        above = rng.uniform(0, 0.2) * height - head
    above = max(above, height - rows * scale)
    if not (top or bottom) and rng.random() < LIFTED_CHANCE:
        above -= rng.uniform(0, 0.3) * height
    shift = ((x - width / 2) / scale, (above - height / 2) / scale + rows / 2)
    return View(float(scale), 0.0, mirrored, shift)


def room_for(background: Array, height: int, width: int, rng: np.random.Generator) -> Array:
    """A crop of a background, sometimes out of focus, sometimes lit otherwise."""
    nobody = Sample(background, np.zeros(background.shape[:2], np.uint8))
    room = warp(nobody, height, width, rng=rng, cover_only=True).image
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
    lightness = rng.uniform(*LIGHTNESS)
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

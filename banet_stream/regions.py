"""Where in a picture the network looks: at all of it, or closer, at the people in it.

People who are small in the frame, such as a whole figure in a wide one, are seen with few pixels by a network
that gets all of it. Of a region around them it sees more with as many pixels, in as much time. What lies
outside a region is nobody; so all of the picture is looked at again when something changes out there, when
somebody reaches the region's edge, and every so often anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import ops
from .network import COARSEST_STRIDE

# More of a pixel than this is somebody, for the region to hold.
SOMEBODY = 0.2
# What a region holds around people, as a share of their longer side: to begin with, and at least.
MARGIN, SMALLEST_MARGIN = 0.2, 0.04
# How many times as large as in the whole picture people are seen. Not worth it below; above, what is done
# with mattes of the whole picture at that scale takes longer than the network.
SMALLEST_ZOOM, LARGEST_ZOOM = 1.15, 2.25
# A region whose zoom is within this factor of the best one stays: edges look a little otherwise at another.
ZOOM_TOLERANCE = 1.25
# The matte fades out over so many pixels where a region ends within the picture.
FADE = 8
# After so many frames a region is chosen anew. All of the picture is looked at then, and after the fewer ones
# if a patch outside the region has changed by so much (a fiftieth of black to white, in normalised units).
FRAMES_KEPT, FRAMES_UNSEEN, CHANGE = 30, 10, 0.09

# Height and width -> the picture at that size, [1, 3, h, w] normalised.
See = Callable[[tuple[int, int]], Tensor]


class Box(NamedTuple):
    """Edges as shares of the picture's height and width."""

    top: float
    bottom: float
    left: float
    right: float

    def around(self, other: Box | None) -> Box:
        """The smallest one that holds both."""
        if other is None:
            return self
        (top, bottom, left, right), o = self, other
        return Box(min(top, o.top), max(bottom, o.bottom), min(left, o.left), max(right, o.right))

    def wider(self, margin: float, shape: tuple[float, float]) -> Box:
        """With ``margin`` times its longer side, in a picture of that shape, more on every side within the
        picture."""
        height, width = shape
        more = margin * max((self.bottom - self.top) * height, (self.right - self.left) * width)
        y, x = more / height, more / width
        return Box(
            max(0.0, self.top - y),
            min(1.0, self.bottom + y),
            max(0.0, self.left - x),
            min(1.0, self.right + x),
        )


def box_of(alpha: Tensor) -> Box | None:
    """Where in a matte [h, w] somebody is; None: nowhere."""
    height, width = alpha.shape
    somebody = torch.cat([alpha.amax(axis) for axis in (1, 0)]).cpu() > SOMEBODY  # waits once for a GPU
    rows, columns = (part.nonzero().flatten().tolist() for part in (somebody[:height], somebody[height:]))
    if not rows:
        return None
    return Box(rows[0] / height, (rows[-1] + 1) / height, columns[0] / width, (columns[-1] + 1) / width)


@dataclass(frozen=True)
class Region:
    """A window of the picture, and how large the picture is in which the network sees it.

    Args:
        picture: height and width of the whole picture at the scale at which the region is seen.
        top, left, height, width: of the window in it, in pixels.
    """

    picture: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @property
    def is_whole(self) -> bool:
        return (self.height, self.width) == self.picture

    @property
    def box(self) -> Box:
        rows, columns = self.picture
        return Box(
            self.top / rows,
            (self.top + self.height) / rows,
            self.left / columns,
            (self.left + self.width) / columns,
        )

    def cut(self, image: Tensor) -> Tensor:
        """The window of a picture [..., H, W] of the size ``picture``."""
        if self.is_whole:
            return image
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return image[..., rows, columns].contiguous()

    def paste(self, alpha: Tensor) -> Tensor:
        """The matte [1, 1, H, W] of the whole picture from the window's [1, 1, h, w]: nobody outside, and
        fading towards there."""
        if self.is_whole:
            return alpha
        rows, columns = self.picture
        bottom, right = rows - self.top - self.height, columns - self.left - self.width
        down = fade(self.height, self.top > 0, bottom > 0, alpha)
        across = fade(self.width, self.left > 0, right > 0, alpha)
        return F.pad(alpha * down[:, None] * across, (self.left, right, self.top, bottom))

    def place(self, box: Box) -> Box:
        """Where in the picture something is that lies at ``box`` in the window."""
        own = self.box
        down, across = own.bottom - own.top, own.right - own.left
        return Box(
            own.top + box.top * down,
            own.top + box.bottom * down,
            own.left + box.left * across,
            own.left + box.right * across,
        )

    def holds(self, box: Box) -> bool:
        """Whether the window holds it with a margin (``SMALLEST_MARGIN``), as far as the picture goes."""
        wanted, own = box.wider(SMALLEST_MARGIN, self.picture), self.box
        return own.around(wanted) == own


def fade(length: int, at_start: bool, at_end: bool, like: Tensor) -> Tensor:
    """[length] factors: 1, and near the ends named less."""
    place = torch.arange(length, dtype=like.dtype, device=like.device) + 0.5
    factors = torch.ones_like(place)
    if at_start:
        factors = factors.minimum(place / FADE)
    if at_end:
        factors = factors.minimum((length - place) / FADE)
    return factors


def whole(size: tuple[int, int]) -> Region:
    """All of a picture, seen at this height and width."""
    return Region(size, 0, 0, *size)


def region_for(box: Box | None, shape: tuple[float, float], size: tuple[int, int]) -> Region:
    """Where to look for people who are in ``box``.

    Args:
        box: None: nobody is there.
        shape: of the picture as shown: height and width in its own pixels, larger than which it is not seen.
        size: at which the network sees all of it: multiples of 32. No region has more pixels.

    Returns:
        All of it where a region would show little more.
    """
    if box is None:
        return whole(size)
    box = box.wider(MARGIN, shape)
    down, across = box.bottom - box.top, box.right - box.left
    zoom = min(math.sqrt(1 / (down * across)), LARGEST_ZOOM, max(1.0, shape[0] / size[0]))
    while zoom >= SMALLEST_ZOOM:
        rows, columns = (round(side * zoom / COARSEST_STRIDE) * COARSEST_STRIDE for side in size)
        height, width = window(down, rows), window(across, columns)
        if height * width <= size[0] * size[1]:
            top, left = (
                centred(box.top, box.bottom, height, rows),
                centred(box.left, box.right, width, columns),
            )
            return Region((rows, columns), top, left, height, width)
        zoom *= 0.97
    return whole(size)


def window(share: float, length: int) -> int:
    """Of so many pixels: a multiple of 32, as the length is."""
    return min(length, math.ceil(share * length / COARSEST_STRIDE) * COARSEST_STRIDE)


def centred(start: float, end: float, side: int, length: int) -> int:
    """Where a window begins around the middle of two shares of the length."""
    return min(max(0, round((start + end) / 2 * length - side / 2)), length - side)


class Look(NamedTuple):
    """What the network saw, and its matte of it, [1, 1, h, w]."""

    region: Region
    alpha: Tensor

    def at(self, region: Region) -> Tensor:
        """The matte of another region."""
        if region == self.region:
            return self.alpha
        pasted = self.region.paste(self.alpha)
        return region.cut(F.interpolate(pasted, region.picture, mode="bilinear"))

    @property
    def box(self) -> Box | None:
        """Where in the picture somebody is; None: nowhere."""
        found = box_of(self.alpha[0, 0])
        return found and self.region.place(found)


class Gaze:
    """Follows the people of one video with a region, frame by frame.

    Args:
        matte: the network: [1, 3, h, w] normalised -> [1, 1, h, w] in 0..1.
        shape: of the video's frames as shown: height and width in pixels.
        size: at which the network sees all of a frame.
        fixed: always look at all of it.
    """

    def __init__(
        self,
        matte: Callable[[Tensor], Tensor],
        shape: tuple[float, float],
        size: tuple[int, int],
        *,
        fixed: bool = False,
    ) -> None:
        self.shape, self.size, self.fixed = shape, size, fixed
        self.region = whole(size)
        self._matte = matte
        self._begins = True
        self._kept = self._unseen = 0  # frames since the region was chosen, and since all was looked at
        self._reach: Box | None = None  # where people were since it was chosen
        self._around: Tensor | None = None  # the patches of the frame in which all was looked at

    def follow(self, image: Tensor, patches: Tensor, see: See) -> Look:
        """The next frame.

        Args:
            image: what ``see`` gives for ``region.picture``.
            patches: [1, 3, h, w], the frame much smaller, always of one size.
            see: the frame at another size.
        """
        region = self.region
        look = self._look(region, image)
        self._kept, self._unseen = self._kept + 1, self._unseen + 1
        late = self._begins or self._kept >= FRAMES_KEPT
        if self.fixed or (region.is_whole and not late):
            return look
        box = look.box
        lost = not region.is_whole and (box is None or not region.holds(box))
        if not (late or lost or self._changed_outside(patches)):
            self._reach = joined(box, self._reach)
            return look
        around = look if region.is_whole else self._look(whole(self.size), see(self.size))
        self._around, self._unseen = patches, 0
        found = around._replace(alpha=ops.fade_islands(around.alpha[0, 0])[None, None]).box
        if not region.is_whole:
            found = joined(found, box)
        chosen = self._choose(found, late=late)
        if chosen == region:
            return look
        return around if chosen.is_whole else self._look(chosen, see(chosen.picture))

    def _look(self, region: Region, image: Tensor) -> Look:
        return Look(region, self._matte(region.cut(image)))

    def _choose(self, found: Box | None, *, late: bool) -> Region:
        """The region from now on. Unless it is ``late`` it only grows."""
        region = self.region
        reach = found if found is None or region.is_whole else joined(found, self._reach)
        chosen = region_for(reach, self.shape, self.size)
        if not region.is_whole and reach and region.holds(reach):
            zoom = chosen.picture[0] / region.picture[0]
            if not late or 1 / ZOOM_TOLERANCE < zoom < ZOOM_TOLERANCE:
                chosen = region
        if late or chosen != region:
            self._kept, self._begins = 0, False
        self._reach = found if late else reach
        self.region = chosen
        return chosen

    def _changed_outside(self, patches: Tensor) -> bool:
        """Whether something did, where the region does not reach, since all was looked at."""
        if self._around is None or self._unseen < FRAMES_UNSEEN:
            return False
        height, width = patches.shape[2:]
        box = self.region.box
        change = (patches - self._around).abs()
        rows = slice(math.ceil(box.top * height), int(box.bottom * height))
        columns = slice(math.ceil(box.left * width), int(box.right * width))
        change[..., rows, columns] = 0
        return float(change.max()) >= CHANGE


def joined(box: Box | None, other: Box | None) -> Box | None:
    return box.around(other) if box else other

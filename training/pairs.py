"""A picture with its matte, compressed in memory or on disk, and how it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from banet_stream.errors import InputError

Array = NDArray[np.uint8]


class Sample(NamedTuple):
    """One picture, decoded."""

    image: Array  # [H, W, 3] uint8 RGB
    matte: Array  # [H, W] uint8, 255 = person
    weight: Array | None = None  # [H, W] uint8, 255 where the matte counts; None: everywhere


class Label(NamedTuple):
    """What a data set's own file says about a picture: a matte, and where it says nothing."""

    matte: Array
    weight: Array | None = None


# A label file's content and the picture's (height, width) -> the label; None where it is damaged.
ReadLabel = Callable[[bytes, tuple[int, int]], Label | None]


@dataclass(frozen=True)
class Pair:
    """One picture and its matte, still compressed: in memory (from a tar), or on disk."""

    key: str  # the set's name and the picture's
    image: bytes | Path
    matte: bytes | Path | None  # None: nobody is in the picture
    read_label: ReadLabel | None = None  # None: the matte is a grey picture
    weight: bytes | Path | None = None  # a grey picture; None: the matte counts everywhere

    def decode(self) -> Sample:
        """Reads and unpacks.

        Raises:
            InputError: naming what is damaged.
        """
        image = unpack(content(self.image), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise InputError(f"{self.key}: the picture can't be decoded")
        if self.matte is None:
            return Sample(image, np.zeros(image.shape[:2], np.uint8))
        label = self.label((image.shape[0], image.shape[1]))
        if label is None:
            raise InputError(f"{self.key}: the matte can't be decoded")
        for what, found in (("matte", label.matte), ("weight", label.weight)):
            if found is not None and found.shape != image.shape[:2]:
                size, wanted = list(found.shape), list(image.shape[:2])
                raise InputError(f"{self.key}: the {what} is {size}, the picture {wanted}")
        return Sample(image, label.matte, label.weight)

    def label(self, size: tuple[int, int]) -> Label | None:
        assert self.matte is not None
        if self.read_label is not None:
            return self.read_label(content(self.matte), size)
        matte = unpack(content(self.matte), cv2.IMREAD_GRAYSCALE)
        if matte is None or self.weight is None:
            return None if matte is None else Label(matte)
        weight = unpack(content(self.weight), cv2.IMREAD_GRAYSCALE)
        if weight is None:
            raise InputError(f"{self.key}: the weight can't be decoded")
        return Label(matte, weight)


def content(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: can't be read ({error})") from error


def unpack(packed: bytes, flags: int) -> Array | None:
    """None where the bytes are no whole picture."""
    if not packed:
        return None  # OpenCV raises on these
    picture = cv2.imdecode(np.frombuffer(packed, np.uint8), flags)
    return None if picture is None else picture.astype(np.uint8, copy=False)

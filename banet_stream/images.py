"""Picture files as Pillow reads them: HEIC too, turned upright, in eight bits."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from .errors import InputError

# These hold more pictures of a photo, or more pages, of which the first is taken.
PAGED = ("MPO", "TIFF", "HEIF")
# What Pillow and its formats raise at damaged files.
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError),
    *(TypeError, LookupError, ArithmeticError, struct.error),
)
# Brands of HEIF: with pictures coded by HEVC (ISO 23008-12, annex B.4), and with any.
HEIC, ANY_HEIF = (b"heic", b"heix", b"heim", b"heis"), b"mif1"
STILL_HEIF = (*HEIC, ANY_HEIF, b"avif")
# Of JPEGs one after another Pillow would see the first.
MOTION_JPEG = (".mjpeg", ".mjpg")
# Pillow's modes of sixteen bits of grey, and how many of their steps are one of eight bits.
DEEP_GREY, DEEP_GREY_STEP = ("I", "I;16", "I;16L", "I;16B", "I;16N"), 257


def open_image(path: str | Path, formats: Sequence[str] | None = None) -> Image.Image:
    """As Pillow's, with its errors; it knows iPhones' HEIC, too. ``formats`` may be unknown here.

    Raises:
        InputError: when it is HEIC, of which FFmpeg sees a part at best, and can't be read.
    """
    Image.init()
    brand = heif_brand(path)
    if brand in (*HEIC, ANY_HEIF):
        learn_heif()
    known = None if formats is None else [name for name in formats if name in Image.OPEN]
    try:
        return Image.open(path, formats=known)
    except UNREADABLE as error:
        if brand in HEIC:
            raise InputError(f"{path}: a HEIC photo that is damaged, or of a kind unknown here") from error
        raise


def heif_brand(path: str | Path) -> bytes:
    """A file's first brand, if it is of the ISO base format, as HEIF is; empty: it is not, or unreadable."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
    except OSError:
        return b""
    return head[8:] if head[4:8] == b"ftyp" else b""


@cache
def learn_heif() -> None:
    from pi_heif import register_heif_opener  # noqa: PLC0415  (seldom needed)

    register_heif_opener()


def may_be_picture(path: str | Path) -> bool:
    """Not a pipe: who opens it as a video needs its first bytes."""
    return is_file(path) and Path(path).suffix.lower() not in MOTION_JPEG


def is_file(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name too long, a folder that may not be searched
        return False


def is_moving(image: Image.Image, path: str | Path) -> bool:
    """Whether FFmpeg takes it for a video.

    Raises:
        InputError: it does, but can't decode it.
    """
    if not getattr(image, "is_animated", False) or image.format in PAGED:
        return False
    if image.format == "WEBP":
        raise InputError(f"{path}: moving WebP can't be decoded here; save it as GIF, APNG or a video")
    return True


def turn_upright(image: Image.Image) -> Image.Image:
    """The picture turned by its EXIF orientation; as it is where that is damaged.

    Raises:
        OSError, ValueError, SyntaxError: the picture itself can't be read.
    """
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises whatever damaged EXIF makes it stumble over
        return image


def convert_colours(image: Image.Image, source: bytes | None, target: bytes | None) -> Image.Image:
    """RGB from one ICC profile to another, None for sRGB; as it is where one of them can't be used."""
    if source == target:
        return image
    try:
        one, other = (
            ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("sRGB"))
            for profile in (source, target)
        )
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, one, other, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    assert converted is not None  # only where it converts in place
    return converted


def eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits of grey as eight: Pillow's ``convert`` makes all above 255 white. Others as they are."""
    if image.mode not in DEEP_GREY:
        return image
    samples = np.asarray(image)
    grey = (samples.clip(0, 0xFFFF) / DEEP_GREY_STEP + 0.5).astype(np.uint8)
    clear = image.info.get("transparency")
    if clear is None:
        return Image.fromarray(grey)
    return Image.fromarray(np.dstack([grey, np.where(samples == clear, 0, 255).astype(np.uint8)]))

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
# Pillow's modes that an ICC profile may describe.
PROFILED = ("RGB", "L", "CMYK")
# Pillow's modes of sixteen bits of grey, and how many of their steps are one of eight bits.
DEEP_GREY, DEEP_GREY_STEP = ("I", "I;16", "I;16L", "I;16B", "I;16N"), 257


def open_image(path: str | Path, formats: Sequence[str] | None = None) -> Image.Image:
    """As Pillow's, with its errors; it knows iPhones' HEIC, too. ``formats`` may be unknown here.

    Raises:
        InputError: when it is HEIC, of which FFmpeg sees a part at best, and can't be read; or when it holds
            floating-point numbers, of which nothing says what white is.
    """
    Image.init()
    brand = heif_brand(path)
    if brand in (*HEIC, ANY_HEIF):
        learn_heif()
    known = None if formats is None else [name for name in formats if name in Image.OPEN]
    try:
        image = Image.open(path, formats=known)
    except UNREADABLE as error:
        if brand in HEIC:
            raise InputError(f"{path}: a HEIC photo that is damaged, or of a kind unknown here") from error
        raise
    if image.mode == "F":
        image.close()
        raise InputError(f"{path}: a picture of floating-point numbers; save it with 8 or 16 bits")
    return image


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


def upright_rgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """A picture file upright, as RGB by an ICC profile, None for sRGB. What is clear in it is black: under it
    may be all of a room.

    Raises:
        OSError, ValueError, SyntaxError: when it can't be read.
    """
    own = image.info.get("icc_profile")
    image = eight_bits(turn_upright(image))
    clear = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if clear else None
    mode = {"LA": "L", "La": "L", "1": "L"}.get(image.mode, image.mode)
    opaque = image.convert(mode if mode in PROFILED else "RGB")
    rgb = convert_colours(opaque, own, profile).convert("RGB")
    return rgb if alpha is None else Image.composite(rgb, Image.new("RGB", rgb.size), alpha)


def colour_space(profile: bytes | None) -> str:
    """Of what an ICC profile describes: ``RGB``, ``GRAY``, ``CMYK``; empty where it can't be read."""
    if not profile:
        return ""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space).strip()
    except (ImageCms.PyCMSError, OSError):
        return ""


def convert_colours(image: Image.Image, source: bytes | None, target: bytes | None) -> Image.Image:
    """A picture (RGB, L or CMYK) from one ICC profile to another's RGB, None for sRGB; as it is where one of
    them can't be used."""
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

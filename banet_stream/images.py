"""Photos: a picture in, a picture out, upright by its EXIF orientation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from . import ops
from .codecs import EncodeOptions
from .errors import InputError, OutputError
from .frame import PIXEL_FORMATS, Colour, Frame, Packet, VideoInfo
from .output import Output, check_no_rate, check_place, free_part, move_into_place
from .sequence import quantise, rgb_samples

# What is taken for a photo by its content; moving GIF, WebP and PNG are videos.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "PPM", "AVIF")
# Extension -> Pillow's format and how it is written: near lossless, with colour in full resolution.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 4}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}
ALPHA_PICTURES = (".png", ".webp", ".tif", ".tiff")
# Twelve bits of YUV hold eight of RGB without loss. H.273: BT.709 matrix and primaries, sRGB's transfer.
LAYOUT = PIXEL_FORMATS["yuv444p12le"]
SRGB = Colour("bt709", True, 1, 1, 13)


class Photo:
    """A picture file as a source of one frame; it has what ``decode.Source`` has.

    Raises:
        InputError: when it can't be read.
    """

    def __init__(self, path: str | Path, image: Image.Image) -> None:
        self.name = str(path)
        try:
            upright = ImageOps.exif_transpose(image)
            # The profile describes the file's own colours: not those of CMYK turned to RGB.
            self.profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
            self.exif = lasting_exif(upright.getexif())
            if "A" in upright.getbands() or "transparency" in upright.info:
                layers = upright.convert("RGBA")
                black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
                upright = Image.alpha_composite(black, layers)
            self.image = upright.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{path}: the picture can't be read ({error})") from error
        self.info = VideoInfo(Fraction(1, 25), Fraction(25), 1, 1 / 25, Fraction(1))
        self.notices: list[str] = []
        self.passed: list[Any] = []
        self.left_out: list[Any] = []
        self.metadata: dict[str, str] = {}
        self.video_metadata: dict[str, str] = {}
        self.start_seconds, self.duration_seconds = 0.0, None
        self.stop = threading.Event()
        self.frames = self.damaged = self.lost_frames = 0
        self.expected_frames = 1
        self.read_error = ""

    def chapters(self) -> list[Any]:
        """None."""
        return []

    def note_damage(self, error: Exception) -> None:
        """See Source."""
        self.damaged += 1
        self.read_error = str(error)

    def decode_sound(self, packet: Packet) -> list[av.AudioFrame]:
        """Never called: there is no sound."""
        raise AssertionError("a photo has no sound")

    def close(self) -> None:
        """See Source."""
        self.image.close()

    def decode(self) -> Iterator[Frame | Packet]:
        """Its only frame."""
        rgb = torch.from_numpy(np.asarray(self.image).copy()).float() / 255
        planes = ops.rgb_to_planes(
            rgb, matrix=SRGB.matrix, full_range=True, depth=LAYOUT.depth, subsampling=LAYOUT.subsampling
        )
        self.frames = 1
        yield Frame(planes, LAYOUT, SRGB, 0, self.info.time_base)


def open_photo(path: str | Path) -> Photo | None:
    """The file as a photo; None: it is something else, or not there.

    Raises:
        InputError: when it is a photo that can't be read.
    """
    Image.init()  # so that Pillow knows all its formats
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with Image.open(path, formats=formats) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":
                return None
            return Photo(path, image)
    except (UnidentifiedImageError, OSError, ValueError):
        return None  # not a picture: who opens it as a video says what is wrong
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too large a picture ({error})") from error


def lasting_exif(exif: Image.Exif) -> bytes:
    """Camera, date and place; without the thumbnail, which shows the background, and the orientation,
    which the pixels now have."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag not in (0x0112, 0x0201, 0x0202):  # orientation; the thumbnail's place and length
            kept[tag] = value
    return kept.tobytes() if len(kept) else b""


class PictureFile(Output):
    """One picture, written beside OUTPUT and moved into place.

    Args:
        path: the extension chooses the format.
        alpha: straight alpha. matte: grey, alpha alone.
    """

    def __init__(
        self, path: Path, source: Photo, options: EncodeOptions, *, alpha: bool = False, matte: bool = False
    ) -> None:
        super().__init__()
        self.path, self.source, self.options = path, source, options
        self._photo, self._alpha, self._matte = source, alpha, matte
        suffix = path.suffix.lower()
        self.encoder, self._how = PICTURES[suffix]
        if alpha and suffix not in ALPHA_PICTURES:
            raise OutputError(f"{path}: {suffix} can't hold transparency; use {', '.join(ALPHA_PICTURES)}")
        check_no_rate(path, options)
        check_place(path, overwrite=options.overwrite)

    def open(self, first: Frame) -> None:
        """See Output."""
        self.part = free_part(self.path)

    def write(self, item: Frame | Packet) -> None:
        """See Output."""
        assert isinstance(item, Frame)
        assert self.part is not None
        facts: dict[str, Any] = {}
        if self._photo.profile and not self._matte:
            facts["icc_profile"] = self._photo.profile
        if self._photo.exif and not self._matte:
            facts["exif"] = self._photo.exif
        self._picture(item).save(self.part, self.encoder, **self._how, **facts)
        self.frames = 1

    def flush(self) -> None:
        """See Output."""

    def finish(self) -> None:
        """See Output."""
        assert self.part is not None
        move_into_place(self.part, self.path, overwrite=self.options.overwrite)

    def abandon(self, *, keep: bool) -> None:
        """See Output."""
        if self.part is not None and not (keep and self.frames):
            self.part.unlink(missing_ok=True)
            self.part = None

    def _picture(self, frame: Frame) -> Image.Image:
        if self._matte:
            assert frame.alpha is not None
            return Image.fromarray(quantise(frame.alpha, 8))
        rgb = rgb_samples(frame, 8)
        if not self._alpha:
            return Image.fromarray(rgb)
        assert frame.alpha is not None
        return Image.fromarray(np.dstack([rgb, quantise(frame.alpha, 8)]))

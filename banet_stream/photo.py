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
from PIL import Image

from . import ops
from .codecs import EncodeOptions
from .errors import InputError, OutputError
from .frame import PIXEL_FORMATS, Colour, Frame, Packet, VideoInfo
from .images import UNREADABLE, colour_space, is_moving, may_be_picture, open_image, upright_rgb
from .output import Output, check_no_rate, check_place, free_part, move_into_place
from .sequence import quantise, rgb_samples

# What is taken for a photo by its content; moving GIF and PNG are videos.
FORMATS = ("JPEG", "MPO", "HEIF", "PNG", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "GIF", "JPEG2000")
# TGA begins with no signature: without its extension much else could be one.
TARGA = ".tga"
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
# Of EXIF (CIPA DC-008, 4.6): description, camera, resolution and its unit, program, date, author, computer
# and copyright; the folders of the exposure and of the place, without what cameras keep there for themselves,
# which may be another thumbnail, and without what points into it.
LASTING_TAGS = {0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298}
LASTING_FOLDERS, PASSING_TAGS = (0x8769, 0x8825), (0x927C, 0xA005)
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
        self.notices: list[str] = []
        try:
            pages = getattr(image, "n_frames", 1)
            if image.format == "TIFF" and pages > 1:
                self.notices.append(f"it holds {pages} pages: the first is taken")
            image.load()
            self.exif = self._read_exif(image)
            profile = image.info.get("icc_profile")
            # A profile of grey or CMYK describes the file's own colours: not those that they become in RGB.
            keeps = colour_space(profile) == "RGB" and image.mode not in ("CMYK", "LAB", "YCbCr", "HSV")
            self.profile = profile if keeps else None
            self.image = upright_rgb(image, self.profile)
        except UNREADABLE as error:
            raise InputError(f"{path}: the picture can't be read ({error})") from error
        self.info = VideoInfo(Fraction(1, 25), Fraction(25), 1, 1 / 25, Fraction(1))
        self.passed: list[Any] = []
        self.left_out: list[Any] = []
        self.metadata: dict[str, str] = {}
        self.video_metadata: dict[str, str] = {}
        self.start_seconds, self.duration_seconds, self.lowered_by = 0.0, None, Fraction(0)
        self.stop = threading.Event()
        self.frames = self.damaged = 0
        self.expected_frames = 1
        self.read_error = self.loss = ""

    def _read_exif(self, image: Image.Image) -> bytes:
        try:
            return lasting_exif(image.getexif())
        except Exception:  # Pillow raises whatever damaged EXIF makes it stumble over
            self.notices.append("the photo's EXIF is damaged: left out")
            return b""

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
        rgb = torch.from_numpy(np.asarray(self.image, np.float32)).div_(255)
        planes = ops.rgb_to_planes(
            rgb, matrix=SRGB.matrix, full_range=True, depth=LAYOUT.depth, subsampling=LAYOUT.subsampling
        )
        self.frames = 1
        del rgb  # twelve bytes a pixel; the frame waits here while it is composited and encoded
        yield Frame(planes, LAYOUT, SRGB, 0, self.info.time_base)


def open_photo(path: str | Path) -> Photo | None:
    """The file as a photo; None: it is something else, or not there.

    Raises:
        InputError: when it is a photo that can't be read.
    """
    if not may_be_picture(path):
        return None
    formats = (*FORMATS, "TGA") if Path(path).suffix.lower() == TARGA else FORMATS
    try:
        with open_image(path, formats) as image:
            if is_moving(image, path):
                return None
            return Photo(path, image)
    except UNREADABLE:
        return None  # not a picture: who opens it as a video says what is wrong
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too large a picture ({error})") from error


def lasting_exif(exif: Image.Exif) -> bytes:
    """Camera, date and place; without the thumbnails, which show the background, and the orientation,
    which the pixels now have."""
    kept = Image.Exif()
    for tag in LASTING_TAGS & exif.keys():
        kept[tag] = exif[tag]
    for folder in LASTING_FOLDERS:
        inside = {tag: value for tag, value in exif.get_ifd(folder).items() if tag not in PASSING_TAGS}
        if inside:
            kept[folder] = inside
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
            facts["exif"] = self._exif()
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

    def _exif(self) -> bytes:
        kept = Image.Exif()
        kept.load(self._photo.exif)
        if self.encoder != "TIFF" or not any(folder in kept for folder in LASTING_FOLDERS):
            return self._photo.exif
        # libtiff, which compresses, refuses them.
        self.notices.append("EXIF's date of exposure and place are left out: compressed TIFF can't hold them")
        for folder in LASTING_FOLDERS:
            kept.pop(folder, None)
        return kept.tobytes()

    def _picture(self, frame: Frame) -> Image.Image:
        if self._matte:
            assert frame.alpha is not None
            return Image.fromarray(quantise(frame.alpha, 8))
        rgb = rgb_samples(frame, 8)
        if not self._alpha:
            return Image.fromarray(rgb)
        assert frame.alpha is not None
        return Image.fromarray(np.dstack([rgb, quantise(frame.alpha, 8)]))

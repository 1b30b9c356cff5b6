"""What may come in: kinds of files, their size, length and resolution, and the words of a refusal."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..decode import Source
from ..errors import BanetStreamError, InputError
from ..images import upright_rgb

# By content, not by name. FFmpeg would open playlists and the like too, which name other files and
# addresses to be opened; so only these containers get as far as FFmpeg.
VIDEO_KINDS = "MP4, MOV, MKV, WebM or AVI"
VIDEO_EXTENSIONS = [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"]
PICTURE_KINDS = "JPEG, PNG or WebP"
PICTURE_EXTENSIONS = [".jpg", ".jpeg", ".png", ".webp"]
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")
MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
EBML = b"\x1aE\xdf\xa3"
# The most frames a second of video is counted as: a file whose header lies about its length stops there.
FASTEST_RATE = 60


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for."""

    upload_mb: int = 200
    seconds: float = 120.0  # of video
    side: int = 1920  # pixels, the longer side of a video
    picture_megapixels: float = 24.0
    cameras: int = 4  # live at once, all visitors together

    @property
    def frames(self) -> int:
        """The most frames of one video."""
        return round((self.seconds + 1) * FASTEST_RATE)

    @property
    def words(self) -> str:
        """For the page."""
        return (
            f"up to {self.upload_mb} MB, {self.seconds:g} seconds ({self.frames} frames) and {self.side} "
            "pixels on the longer side"
        )


def check_video(path: str, limits: Limits) -> float:
    """Refuses what is no video or too much of one; returns its length in seconds.

    Raises:
        InputError: in words for the visitor, without the server's paths.
    """
    name = Path(path).name
    check_size(path, limits)
    with Path(path).open("rb") as file:
        head = file.read(16)
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    if not (head[4:8] in MOV_BOXES or head[:4] == EBML or riff):
        raise InputError(f"{name} is not a video this page can read. It takes {VIDEO_KINDS}.")
    try:
        with closing(Source(path)) as source:
            seconds, frames = source.info.duration_seconds, source.expected_frames
            width, height = source.video.width, source.video.height
    except BanetStreamError as error:
        raise InputError(f"{in_words(error, path)}. The page takes {VIDEO_KINDS}.") from error
    if not seconds or seconds <= 0:
        raise InputError(f"{name} does not say how long it is. Save it once more as MP4 and try again.")
    if seconds > limits.seconds:
        raise InputError(
            f"{name} is {seconds:.0f} seconds long; this page takes at most {limits.seconds:g}. "
            "Cut it shorter, or use the command line."
        )
    if frames > limits.frames:
        raise InputError(
            f"{name} has {frames} frames; this page takes at most {limits.frames}. Cut it shorter, or save "
            "it with fewer frames per second."
        )
    if max(width, height) > limits.side:
        raise InputError(
            f"{name} has {width} x {height} pixels; this page takes at most {limits.side} on the longer "
            "side. Save it smaller, or use the command line."
        )
    return seconds


def read_picture(path: str, limits: Limits) -> NDArray[np.uint8]:
    """[H, W, 3] in sRGB, turned by its EXIF orientation; black where it is clear.

    Raises:
        InputError: in words for the visitor.
    """
    name = Path(path).name
    check_size(path, limits)
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > limits.picture_megapixels:
                raise InputError(
                    f"{name} has {megapixels:.0f} megapixels; this page takes at most "
                    f"{limits.picture_megapixels:g}. Save it smaller."
                )
            return np.array(upright_rgb(image))
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture this page can read. It takes {PICTURE_KINDS}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} is damaged and can't be read. Try another picture.") from error


def check_size(path: str, limits: Limits) -> None:
    """The page's own uploads are stopped while they arrive; this is for whatever came another way.

    Raises:
        InputError: when the file is too large, or here no more.
    """
    try:
        megabytes = Path(path).stat().st_size / 1e6
    except FileNotFoundError as error:
        raise InputError(f"{Path(path).name} is no longer on the server. Upload it again.") from error
    if megabytes > limits.upload_mb:
        raise InputError(
            f"{Path(path).name} has {megabytes:.0f} MB; this page takes at most {limits.upload_mb}."
        )


def in_words(error: BanetStreamError, *paths: str | Path) -> str:
    """An error's message with file names in place of the server's paths."""
    text = str(error)
    for path in paths:
        text = text.replace(str(path), Path(path).name)
    return text

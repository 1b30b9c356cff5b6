"""What travels through the pipeline: decoded frames, and packets that pass untouched."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Self, TypeVar

import av
import numpy as np
import torch
from av.sidedata.sidedata import Type
from numpy.typing import NDArray
from torch import Tensor

from . import chroma
from .side_data import side_data_of

if TYPE_CHECKING:
    from .hdr import LightMetadata

# A compressed piece of sound or subtitles.
Packet = av.Packet

# Above this size untagged video is BT.709, below BT.601: what players and broadcasters assume.
SD_WIDTH, SD_HEIGHT = 1024, 576


@dataclass(frozen=True)
class PixelFormat:
    """A planar YUV layout the operators work on."""

    name: str  # FFmpeg's name
    depth: int  # bits per sample
    subsampling: tuple[int, int]  # horizontal, vertical

    @property
    def dtype(self) -> type[np.generic]:
        return np.uint8 if self.depth == 8 else np.int16

    @property
    def alpha_name(self) -> str:
        """FFmpeg's name of the same layout with a fourth plane."""
        return self.name.replace("yuv", "yuva")


_SUBSAMPLINGS = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}
PIXEL_FORMATS = {
    f"yuv{name}p{suffix}": PixelFormat(f"yuv{name}p{suffix}", depth, subsampling)
    for name, subsampling in _SUBSAMPLINGS.items()
    for suffix, depth in (("", 8), ("10le", 10), ("12le", 12))
}


def nearest_format(name: str) -> PixelFormat:
    """The supported layout that keeps what ``name`` (any FFmpeg pixel format) holds.

    ``yuvj420p`` is ``yuv420p`` with full range; RGB keeps its colour at 4:4:4; grey becomes 4:2:0.
    """
    exact = PIXEL_FORMATS.get(name.replace("yuvj", "yuv").replace("yuva", "yuv"))
    if exact:
        return exact
    components = av.VideoFormat(name).components
    bits = max(c.bits for c in components)
    depth = 8 if bits <= 8 else 10 if bits <= 10 else 12
    if av.VideoFormat(name).is_rgb or av.VideoFormat(name).has_palette:
        subsampling = (1, 1)
    elif len(components) < 3:
        subsampling = (2, 2)
    else:
        video = av.VideoFormat(name, 64, 64)
        subsampling = (64 // video.chroma_width(), 64 // video.chroma_height())
    for candidate in PIXEL_FORMATS.values():
        if candidate.depth == depth and candidate.subsampling == subsampling:
            return candidate
    return next(f for f in PIXEL_FORMATS.values() if f.depth == depth and f.subsampling == (1, 1))


@dataclass(frozen=True)
class Colour:
    """How samples mean colours (ITU-T H.273); the integers are FFmpeg's enumerations."""

    matrix: str  # bt601, bt709 or bt2020: what the operators take
    full_range: bool
    space: int
    primaries: int
    transfer: int
    chroma_location: str = chroma.UNSPECIFIED  # of 4:2:0

    @property
    def range(self) -> int:
        return FULL if self.full_range else LIMITED


# Code points of ITU-T H.273 (tables 2-4) that FFmpeg shares.
UNSPECIFIED = 2
BT709, SMPTE170M = 1, 6  # the same numbers in all three tables
MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020"}  # 4, 7: to two digits
# Matrices of H.273 in which nothing here can compute: taken for another, all colours would be wrong.
STRANGE_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE ST 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived, constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
LIMITED, FULL = 1, 2  # FFmpeg's AVColorRange


def usual_colour(width: int, height: int) -> str:
    """The matrix of untagged video, by size."""
    return "bt709" if width > SD_WIDTH or height > SD_HEIGHT else "bt601"


def colour_of(frame: av.VideoFrame) -> Colour:
    """The frame's tags; what is untagged follows the convention by size (BT.601 up to 1024x576)."""
    usual = BT709 if usual_colour(frame.width, frame.height) == "bt709" else SMPTE170M
    space = int(frame.colorspace) if int(frame.colorspace) in MATRICES else usual
    primaries, transfer = (
        usual if int(tag) in (0, UNSPECIFIED) else int(tag)
        for tag in (frame.color_primaries, frame.color_trc)
    )
    # A decoder whose stream becomes limited on the way may go on to call its layout yuvj.
    full = int(frame.color_range) == FULL or (
        int(frame.color_range) != LIMITED and frame.format.name.startswith("yuvj")
    )
    return Colour(MATRICES[space], full, space, primaries, transfer)


@dataclass(frozen=True)
class Frame:
    """A decoded picture: planes, when it is shown, and what its samples mean.

    ``planes`` are Y [H, W], U and V [h, w]: uint8, or int16 above 8 bits, as coded; a player turns them
    ``rotation`` degrees (0, 90, 180, 270) counter-clockwise and stretches them by the sample aspect ratio.
    ``alpha`` is the matte [H, W] float32 in 0..1, where the output asks for it; colours are straight, not
    multiplied by it.
    """

    planes: list[Tensor]
    format: PixelFormat
    colour: Colour
    pts: int
    time_base: Fraction
    rotation: int = 0
    sample_aspect_ratio: Fraction = Fraction(1)
    alpha: Tensor | None = None
    light: LightMetadata | None = None  # of HDR

    @property
    def height(self) -> int:
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        return int(self.planes[0].shape[1])

    def with_planes(self, planes: list[Tensor]) -> Self:
        """The same frame with other samples."""
        return replace(self, planes=planes)

    def to(self, device: torch.device) -> Self:
        """The same frame with its samples, and its matte, on ``device``."""
        alpha = None if self.alpha is None else self.alpha.to(device)
        return replace(self, planes=[plane.to(device) for plane in self.planes], alpha=alpha)

    @property
    def device(self) -> torch.device:
        """Where its samples lie."""
        return self.planes[0].device

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)


# What is done to a frame gives one of its kind (live.py has its own).
AnyFrame = TypeVar("AnyFrame", bound=Frame)


def planes_of(frame: av.VideoFrame, pixel_format: PixelFormat) -> list[Tensor]:
    """The planes of a frame in one of PIXEL_FORMATS, without a copy (they keep the frame alive)."""
    planes = []
    for plane in frame.planes:
        samples = np.frombuffer(plane, pixel_format.dtype)  # type: ignore[call-overload]
        stride = plane.line_size // samples.itemsize
        planes.append(torch.from_numpy(samples.reshape(-1, stride)[: plane.height, : plane.width]))
    return planes


def quarter_turns(frame: av.VideoFrame) -> int:
    """Degrees counter-clockwise that a player turns the picture: 0, 90, 180 or 270.

    One that ``is_mirrored`` is mirrored from left to right before.
    """
    return (round(frame.rotation / 90) * 90 + 180 * is_mirrored(frame)) % 360


def is_mirrored(frame: av.VideoFrame) -> bool:
    """Whether a player mirrors the picture: its display matrix turns it over."""
    for side in side_data_of(frame):
        if side.type == Type.DISPLAYMATRIX:
            right_x, right_y, _, down_x, down_y = struct.unpack_from("5i", bytes(side))
            return bool(right_x * down_y < right_y * down_x)
    return False


def mirror(planes: list[Tensor]) -> list[Tensor]:
    """Left and right exchanged, as FFmpeg's hflip does it: chroma is not resampled."""
    return [plane.flip(1) for plane in planes]


def to_video_frame(frame: Frame) -> av.VideoFrame:
    """A copy in FFmpeg's own memory, ready for an encoder."""
    layout, planes = frame.format.name, frame.planes
    if frame.alpha is not None:
        layout = frame.format.alpha_name
        planes = [*planes, alpha_samples(frame.alpha, frame.format.depth)]
    video = av.VideoFrame(frame.width, frame.height, layout)
    for target, source in zip(planes_of(video, frame.format), planes, strict=True):
        target.copy_(source)
    video.pts, video.time_base = frame.pts, frame.time_base
    video.colorspace, video.color_range = frame.colour.space, frame.colour.range
    # ProRes takes these from the frames, not from its context.
    video.color_primaries, video.color_trc = frame.colour.primaries, frame.colour.transfer
    return video


def alpha_samples(alpha: Tensor, depth: int) -> Tensor:
    """[H, W] in 0..1 as samples of ``depth`` bits, which use the full range whatever the colours' is."""
    samples: Tensor = (alpha * (2**depth - 1) + 0.5).to(torch.uint8 if depth == 8 else torch.int16)
    return samples


def rgb_of(frame: Frame) -> NDArray[np.uint8]:
    """[H, W, 3] uint8, turned upright: for eyes and for other libraries, not for the pipeline."""
    picture = to_video_frame(replace(frame, alpha=None)).to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(picture, frame.rotation // 90))


@dataclass(frozen=True)
class VideoInfo:
    """What a source says of itself before the first frame is decoded."""

    time_base: Fraction
    rate: Fraction | None
    frames: int  # declared by the container; 0: unknown
    duration_seconds: float | None
    sample_aspect_ratio: Fraction
    chroma_location: str = chroma.UNSPECIFIED

"""Pictures of any size, layout and colour, made to fit the first one of their stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import torch
from torch import Tensor

from . import chroma
from .frame import (
    FULL,
    LIMITED,
    PIXEL_FORMATS,
    Colour,
    PixelFormat,
    colour_of,
    is_mirrored,
    mirror,
    nearest_format,
    planes_of,
    quarter_turns,
)

# What every encoder, camera and player of live video takes.
FORMAT = PIXEL_FORMATS["yuv420p"]
BLACK_LUMA, NO_COLOUR = {True: 0, False: 16}, 128


def refit(
    picture: av.VideoFrame, size: tuple[int, int], layout: PixelFormat, colour: Colour
) -> av.VideoFrame:
    """The picture in another size (width, height), layout, matrix and range; itself where it has these."""
    own = colour_of(picture)
    rgb = picture.format.is_rgb
    alike = rgb or (own.matrix, own.full_range) == (colour.matrix, colour.full_range)
    plain = picture.format.name.replace("yuvj", "yuv") == layout.name
    if alike and plain and (picture.width, picture.height) == size:
        return picture
    if int(picture.color_range) == LIMITED and is_grey(picture):
        picture = with_chroma(picture)
    elif not own.full_range:
        picture = relabel(picture)
    if not rgb and own.matrix != colour.matrix:  # which FFmpeg's scaler leaves alone between YUV layouts
        deep = "rgb24" if layout.depth == 8 else "rgb48le"
        picture = picture.reformat(format=deep, src_colorspace=own.space, src_color_range=own.range)
        picture.colorspace = colour.space  # or its old tag decides
        rgb = True
    return picture.reformat(
        width=size[0],
        height=size[1],
        format=layout.name,
        src_colorspace=None if rgb else own.space,
        dst_colorspace=colour.space,
        src_color_range=None if rgb else own.range,
        dst_color_range=colour.range,
    )


def relabel(picture: av.VideoFrame) -> av.VideoFrame:
    """``yuvj`` samples of limited range under the name without j, by which FFmpeg's scaler goes."""
    layout = PIXEL_FORMATS.get(picture.format.name.replace("yuvj", "yuv"))
    if layout is None or layout.name == picture.format.name:
        return picture
    copy = av.VideoFrame(picture.width, picture.height, layout.name)
    for target, source in zip(planes_of(copy, layout), planes_of(picture, layout), strict=True):
        target.copy_(source)
    return copy


def is_grey(picture: av.VideoFrame) -> bool:
    """Whether it has no chroma at all; there may be alpha."""
    return picture.format.name.startswith(("gray", "ya"))


def with_chroma(picture: av.VideoFrame) -> av.VideoFrame:
    """Grey of limited range in a YUV layout, its luma as it is.

    FFmpeg's scaler takes all grey for full range, and would compress it a second time.
    """
    name = nearest_format(picture.format.name).name
    copy = picture.reformat(format=name, src_color_range=FULL, dst_color_range=FULL)
    copy.color_range = LIMITED
    return copy


def chroma_location(picture: av.VideoFrame, location: str) -> str:
    """Where chroma lies once the picture is mirrored, if it is: on the left becomes on the right, unnamed."""
    if is_mirrored(picture) and location not in (chroma.CENTER, chroma.TOP, chroma.BOTTOM):
        return chroma.UNSPECIFIED
    return location


@dataclass(frozen=True)
class Shape:
    """Size, layout and colour of all pictures of a session; upright, with even sides."""

    width: int
    height: int
    colour: Colour
    sample_aspect_ratio: Fraction
    format: PixelFormat = FORMAT

    @classmethod
    def of(cls, picture: av.VideoFrame, stream: av.VideoStream) -> Shape:
        """The shape of a first picture."""
        aspect = stream.sample_aspect_ratio or Fraction(1)
        size = (picture.width, picture.height)
        if quarter_turns(picture) % 180:
            size, aspect = size[::-1], 1 / aspect
        width, height = (max(2, side - side % 2) for side in size)
        told = chroma_location(picture, chroma.read_location(stream))
        where = chroma.turn(told, quarter_turns(picture) // 90)
        return cls(width, height, replace(colour_of(picture), chroma_location=where), aspect)

    def planes(self, picture: av.VideoFrame) -> list[Tensor]:
        """The picture's planes in this shape; one of another aspect ratio lies between black bars."""
        turns = quarter_turns(picture) // 90
        size = (picture.width, picture.height)
        shown = size[::-1] if turns % 2 else size
        scale = min(self.width / shown[0], self.height / shown[1])
        fitted = tuple(max(2, round(side * scale / 2) * 2) for side in shown)
        if abs(fitted[0] - self.width) <= 2 and abs(fitted[1] - self.height) <= 2:
            fitted = (self.width, self.height)  # but for rounding it is the same
        width, height = fitted[::-1] if turns % 2 else fitted
        mirrored = is_mirrored(picture)
        planes = planes_of(refit(picture, (width, height), self.format, self.colour), self.format)
        if mirrored:
            planes = mirror(planes)
        planes = [torch.rot90(p, turns).contiguous() if turns else p for p in planes]
        return planes if fitted == (self.width, self.height) else self._between_bars(planes)

    def _between_bars(self, planes: list[Tensor]) -> list[Tensor]:
        framed = []
        for number, plane in enumerate(planes):
            step = 2 if number else 1
            whole = torch.full(
                (self.height // step, self.width // step),
                NO_COLOUR if number else BLACK_LUMA[self.colour.full_range],
                dtype=plane.dtype,
            )
            top = (whole.shape[0] - plane.shape[0]) // 2
            left = (whole.shape[1] - plane.shape[1]) // 2
            whole[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
            framed.append(whole)
        return framed

"""Pictures of any size and layout, made to fit the first one of a live session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import torch
from torch import Tensor

from . import chroma
from .frame import PIXEL_FORMATS, Colour, PixelFormat, colour_of, planes_of, quarter_turns

# What every encoder, camera and player of live video takes.
FORMAT = PIXEL_FORMATS["yuv420p"]
BLACK_LUMA, NO_COLOUR = {True: 0, False: 16}, 128


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
        where = chroma.turn(chroma.read_location(stream), quarter_turns(picture) // 90)
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
        coded = fitted[::-1] if turns % 2 else fitted
        colour = colour_of(picture)
        alike = (colour.space, colour.full_range) == (self.colour.space, self.colour.full_range)
        if coded != size or not alike or picture.format.name.replace("yuvj", "yuv") != self.format.name:
            if colour.space != self.colour.space:  # which FFmpeg's scaler leaves alone between YUV layouts
                picture = picture.reformat(
                    format="rgb24", src_colorspace=colour.space, src_color_range=colour.range
                )
                picture.colorspace = self.colour.space  # or its old tag decides
            picture = picture.reformat(
                width=coded[0],
                height=coded[1],
                format=self.format.name,
                src_colorspace=self.colour.space,
                dst_colorspace=self.colour.space,
                src_color_range=None if picture.format.is_rgb else colour.range,
                dst_color_range=self.colour.range,
            )
        planes = [torch.rot90(p, turns).contiguous() if turns else p for p in planes_of(picture, self.format)]
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

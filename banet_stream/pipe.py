"""Raw frames to standard output, as YUV4MPEG2 (y4m): what ``ffmpeg -i -`` and other programs read."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import chroma
from .errors import OutputError
from .frame import PIXEL_FORMATS, Frame, Packet, planes_of, to_video_frame, usual_colour
from .opening import STANDARD
from .output import Output

if TYPE_CHECKING:
    from .decode import Source

LABEL = "standard output"
USUAL_RATE = Fraction(25)
# 8-bit 4:2:0 has three names, by where chroma lies, as FFmpeg understands them. Others are nearest to the
# third, jpeg: the centre. Unspecified is left, as in H.264.
LOCATION_NAMES = {
    chroma.UNSPECIFIED: "mpeg2",
    chroma.LEFT: "mpeg2",
    chroma.BOTTOMLEFT: "mpeg2",
    chroma.TOPLEFT: "paldv",
}


class Y4m(Output):
    """Standard output. Frames leave upright, as y4m knows no rotation; sound is left out."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.path, self.source = Path(STANDARD), source
        self.encoder = "y4m"
        self._rate = source.info.rate or USUAL_RATE
        self._first: tuple[int, int] | None = None  # pts of the first frame, and of the last
        self._uneven = 0
        if sys.stdout is None or sys.stdout.closed:
            raise OutputError("-o -: standard output is closed")
        if sys.stdout.isatty():
            raise OutputError("-o -: standard output is a terminal; pipe it into another program")

    def open(self, first: Frame) -> None:
        """See Output."""
        sys.stdout.flush()
        # Unbuffered: nothing is left to fail when Python closes it.
        self._file = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
        first = turn_upright(first)
        self._write(header(first, self._rate))
        if first.colour.matrix != usual_colour(first.width, first.height):
            self.notices.append(
                f"y4m does not tell the colour matrix, which is {first.colour.matrix}: tell the next program"
            )
        if self.source.passed:
            self.notices.append("y4m holds no sound or subtitles: left out")

    def write(self, item: Frame | Packet) -> None:
        """See Output."""
        if isinstance(item, Packet):
            return
        self._note_time(item)
        frame = turn_upright(item)
        self._write(b"FRAME\n")
        for plane in frame.planes:
            self._write(plane.contiguous().numpy().tobytes())
        self.frames += 1

    def flush(self) -> None:
        """See Output."""
        self._file.close()
        if self._uneven:
            self.notices.append(
                f"{self._uneven} frames are not evenly spaced in time; y4m has one rate, {self._rate}"
            )

    def finish(self) -> None:
        """See Output."""

    def abandon(self, *, keep: bool) -> None:
        """See Output."""

    def _note_time(self, frame: Frame) -> None:
        first, last = self._first or (frame.pts, frame.pts)
        step = 1 / self._rate
        expected = (last - first) * frame.time_base + (step if self._first else 0)
        if abs((frame.pts - first) * frame.time_base - expected) > step / 2:
            self._uneven += 1
        self._first = (first, frame.pts)

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BrokenPipeError as error:
            raise OutputError(f"{LABEL}: closed by its reader after {self.frames} frames") from error


def header(frame: Frame, rate: Fraction) -> bytes:
    """The stream's first line (the man page yuv4mpeg(5), and FFmpeg's names beyond 8 bits)."""
    subsampling = "".join(c for c in frame.format.name[:6] if c.isdigit())
    depth = f"p{frame.format.depth}" if frame.format.depth > 8 else ""
    layout = f"{subsampling}{depth}"
    if layout == "420":
        layout += LOCATION_NAMES.get(frame.colour.chroma_location, "jpeg")
    aspect = frame.sample_aspect_ratio
    words = [
        "YUV4MPEG2",
        f"W{frame.width}",
        f"H{frame.height}",
        f"F{rate.numerator}:{rate.denominator}",
        "Ip",
        f"A{aspect.numerator}:{aspect.denominator}",
        f"C{layout}",
        f"XYSCSS={layout.upper()}",
        f"XCOLORRANGE={'FULL' if frame.colour.full_range else 'LIMITED'}",
    ]
    return " ".join(words).encode() + b"\n"


def turn_upright(frame: Frame) -> Frame:
    """The frame as a player shows it: rotated samples, no rotation left to do."""
    if not frame.rotation:
        return frame
    aspect, layout = frame.sample_aspect_ratio, frame.format
    if frame.rotation in (90, 270):
        aspect = 1 / aspect
        if layout.subsampling == (2, 1):  # turned it would be halved in height only, which y4m has not
            layout = PIXEL_FORMATS[layout.name.replace("422", "444")]
            full = to_video_frame(frame).reformat(format=layout.name)
            frame = replace(frame, planes=planes_of(full, layout), format=layout)
    quarters = frame.rotation // 90
    planes: list[Tensor] = [torch.rot90(plane, quarters) for plane in frame.planes]
    where = chroma.turn(frame.colour.chroma_location, quarters)
    colour = replace(frame.colour, chroma_location=where)
    return replace(frame, planes=planes, colour=colour, rotation=0, sample_aspect_ratio=aspect)

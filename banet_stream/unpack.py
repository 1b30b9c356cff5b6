"""Packets become pictures: decoded, deinterlaced, with timestamps that rise, all of one shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError

from .fields import Deinterlacer
from .fitting import chroma_location, refit
from .frame import (
    Colour,
    Frame,
    Packet,
    PixelFormat,
    VideoInfo,
    colour_of,
    is_mirrored,
    mirror,
    nearest_format,
    planes_of,
    quarter_turns,
)
from .hdr import is_hdr, light_metadata

if TYPE_CHECKING:
    from .decode import Source


class WholePictures:
    """Packets to pictures: decoded, deinterlaced, timed, and all like the first one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._clock = Clock(source.info)
        self._fields = Deinterlacer(source.deinterlace)
        self._first: Look | None = None

    def decode(self, packet: Packet) -> Iterator[tuple[av.VideoFrame, int]]:
        """Pictures with their timestamps; the empty packet at the end brings those held back."""
        for picture in decode_packet(self._source, packet):
            picture.pts = self._clock.timestamp(picture)
            picture.time_base = self._source.info.time_base
            before = self._fields.working
            yield from ((whole, whole.pts or 0) for whole in self._fields.push(picture))
            if self._fields.working and not before:
                self._source.notices.append("interlaced video: deinterlaced, a frame for every two fields")
        if not packet.size:
            yield from ((whole, whole.pts or 0) for whole in self._fields.flush())

    def to_frame(self, picture: av.VideoFrame, pts: int) -> Frame:
        """The picture in the size, layout and colour of the stream's first one."""
        colour = colour_of(picture)
        if self._first is None:
            self._first = Look.of(picture, self._source.info)
        first = self._first
        if (picture.width, picture.height) != first.size:
            sizes = f"{first.size[0]}x{first.size[1]} to {picture.width}x{picture.height}"
            self._source.note_once(f"the picture changes from {sizes} on the way: scaled to the first size")
        if not picture.format.is_rgb and colour.full_range != first.colour.full_range:
            self._source.note_once("the range of colours changes on the way: converted to the first one")
        return first.frame(picture, pts)


@dataclass(frozen=True)
class Look:
    """What all frames of a stream have in common, taken from the first one."""

    size: tuple[int, int]  # width, height
    layout: PixelFormat
    colour: Colour
    info: VideoInfo

    @classmethod
    def of(cls, picture: av.VideoFrame, info: VideoInfo) -> Look:
        """The look of a first picture."""
        colour = replace(colour_of(picture), chroma_location=chroma_location(picture, info.chroma_location))
        if picture.format.is_rgb:
            colour = replace(colour, full_range=False)
        return cls((picture.width, picture.height), nearest_format(picture.format.name), colour, info)

    def frame(self, picture: av.VideoFrame, pts: int) -> Frame:
        """A decoded picture with this look; one to be mirrored is."""
        planes = planes_of(refit(picture, self.size, self.layout, self.colour), self.layout)
        return Frame(
            planes=mirror(planes) if is_mirrored(picture) else planes,
            format=self.layout,
            colour=self.colour,
            pts=pts,
            time_base=self.info.time_base,
            rotation=quarter_turns(picture),
            sample_aspect_ratio=self.info.sample_aspect_ratio,
            light=light_metadata(picture) if is_hdr(self.colour) else None,
        )


def decode_packet(source: Source, packet: Packet) -> list[av.VideoFrame]:
    try:
        return [f for f in packet.decode() if isinstance(f, av.VideoFrame)]
    except (FFmpegError, OSError) as error:
        source.damaged_pictures += 1
        source.note_damage(error)
        return []


class Clock:
    """Timestamps that rise: the frames' own, made up from the rate where there is none."""

    def __init__(self, info: VideoInfo) -> None:
        self._step = max(1, round(1 / ((info.rate or 25) * info.time_base)))
        self._last: int | None = None

    def timestamp(self, picture: av.VideoFrame) -> int:
        pts = picture.pts if picture.pts is not None else picture.dts
        if self._last is None:
            self._last = pts or 0
        else:
            self._last = max(self._last + self._step if pts is None else pts, self._last + 1)
        return self._last

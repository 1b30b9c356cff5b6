"""Packets become pictures: decoded, deinterlaced, with timestamps that rise, all of one shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError

from .fields import Deinterlacer
from .frame import Frame, Packet, VideoInfo, colour_of, nearest_format, planes_of, quarter_turns
from .hdr import is_hdr, light_metadata

if TYPE_CHECKING:
    from .decode import Source


class WholePictures:
    """Packets to pictures: decoded, deinterlaced, timed, and all like the first one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._clock = Clock(source.info)
        self._fields = Deinterlacer(source.deinterlace)
        self._shape: tuple[int, int, str] | None = None

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
        """The picture in the layout and size of the stream's first one."""
        shape = (picture.width, picture.height, picture.format.name)
        if self._shape is None:
            self._shape = shape
        elif shape[:2] != self._shape[:2]:
            sizes = " to ".join(f"{s[0]}x{s[1]}" for s in (self._shape, shape))
            notice = f"the picture changes from {sizes} on the way: scaled to the first size"
            if notice not in self._source.notices:
                self._source.notices.append(notice)
        return to_frame(picture, pts, self._source.info, self._shape)


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


def to_frame(picture: av.VideoFrame, pts: int, info: VideoInfo, shape: tuple[int, int, str]) -> Frame:
    """Wraps a decoded picture, in the layout and size of the stream's first one."""
    layout = nearest_format(shape[2])
    changed = (picture.width, picture.height, picture.format.name) != shape
    plain = picture.format.name.replace("yuvj", "yuv") == layout.name
    colour = replace(colour_of(picture), chroma_location=info.chroma_location)
    if picture.format.is_rgb:
        colour = replace(colour, full_range=False)
    if changed or not plain:
        picture = picture.reformat(
            width=shape[0],
            height=shape[1],
            format=layout.name,
            dst_colorspace=colour.space,
            dst_color_range=colour.range,
        )
    return Frame(
        planes=planes_of(picture, layout),
        format=layout,
        colour=colour,
        pts=pts,
        time_base=info.time_base,
        rotation=quarter_turns(picture),
        sample_aspect_ratio=info.sample_aspect_ratio,
        light=light_metadata(picture) if is_hdr(colour) else None,
    )

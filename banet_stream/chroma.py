"""Where chroma samples lie among luma samples in 4:2:0 video: read from a stream, told to encoders.

PyAV has no attribute for it. FFmpeg's Matroska muxer writes it, whatever a stream's own codec and container
(RFC 9559: ChromaSitingHorz, ChromaSitingVert), so a header of that kind, in memory, is where it is read. The
two bottom places, for which only interlaced video has a use, can't be read so.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
from av.error import FFmpegError

# FFmpeg's names of the types 0 to 5 in H.264's figure E-1.
UNSPECIFIED = "unspecified"
LEFT, CENTER, TOPLEFT, TOP, BOTTOMLEFT, BOTTOM = "left", "center", "topleft", "top", "bottomleft", "bottom"
# From the left and top of a square of 2x2 luma samples, in their distances' halves.
PLACES = {(0, 1): LEFT, (1, 1): CENTER, (0, 0): TOPLEFT, (1, 0): TOP, (0, 2): BOTTOMLEFT, (1, 2): BOTTOM}
# Matroska's elements; the first five hold others.
SEGMENT, TRACKS, TRACK_ENTRY, VIDEO, COLOUR = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x55B0
FROM_LEFT, FROM_TOP = 0x55B7, 0x55B8  # 1: on the edge, 2: half-way
# What says it by itself, whatever the container; AV1 knows two places (its specification, 6.4.2).
IN_BITSTREAM = {
    "h264": frozenset(PLACES.values()),
    "hevc": frozenset(PLACES.values()),
    "av1": frozenset((LEFT, TOPLEFT)),
}
SAYING_CONTAINERS = (".mkv", ".webm")


def read_location(stream: av.VideoStream) -> str:
    """The stream's chroma location, as its bitstream or container tells it, or as its codec fixes it.

    ``unspecified`` where nothing does, and for anything but 4:2:0.
    """
    layout = getattr(stream.codec_context, "format", None)  # a codec that FFmpeg does not know has no context
    if layout is None or not is_420(layout.name):
        return UNSPECIFIED
    told = dict(leaves(matroska_header(stream)))
    place = (told.get(FROM_LEFT, 0) - 1, told.get(FROM_TOP, 0) - 1)
    return PLACES.get(place, UNSPECIFIED)


def is_420(pixel_format: str) -> bool:
    """Whether chroma has half the width and height of luma."""
    video = av.VideoFormat(pixel_format, 64, 64)
    return (video.chroma_width(), video.chroma_height()) == (32, 32)


def matroska_header(stream: av.VideoStream) -> bytes:
    """The stream's description in Matroska; nothing where that can't hold the codec."""
    header = io.BytesIO()
    try:
        # Layouts of raw samples that Matroska has no name for go by their Windows name.
        with av.open(header, "w", format="matroska", options={"allow_raw_vfw": "1"}) as container:
            copied = container.add_stream_from_template(stream, opaque=True)
            if stream.codec_context.name == "rawvideo":
                copied.codec_context.codec_tag = stream.codec_context.codec_tag
            container.start_encoding()
    except (FFmpegError, ValueError):
        return b""
    return header.getvalue()


def leaves(content: bytes) -> Iterator[tuple[int, int]]:
    """The numbers in EBML (RFC 8794, 4 to 6), by element: of the first track's picture in Matroska."""
    at = 0
    while at < len(content):
        element, at = variable_integer(content, at, with_marker=True)
        size, at = variable_integer(content, at, with_marker=False)
        inside = content[at : at + size]
        if element in (SEGMENT, TRACKS, TRACK_ENTRY, VIDEO, COLOUR):
            yield from leaves(inside)
        elif element in (FROM_LEFT, FROM_TOP):
            yield element, int.from_bytes(inside, "big")
        at += size


def variable_integer(content: bytes, at: int, *, with_marker: bool) -> tuple[int, int]:
    """EBML's number at an offset, and the offset behind it; zeros before the first one tell its length."""
    length = 9 - content[at].bit_length()
    number = int.from_bytes(content[at : at + length], "big")
    return number if with_marker else number & ~(1 << 7 * length), at + length


def encoder_options(location: str) -> dict[str, str]:
    """What an encoder and its container are told, in FFmpeg's words."""
    return {} if location == UNSPECIFIED else {"chroma_sample_location": location}


def is_kept(location: str, codec: str, suffix: str) -> bool:
    """Whether who reads 4:2:0 video of a codec in a container learns this location."""
    return (
        location == UNSPECIFIED
        or suffix.lower() in SAYING_CONTAINERS
        or location in IN_BITSTREAM.get(codec, ())
    )


def turn(location: str, quarters: int) -> str:
    """The location once the picture is turned by so many quarters counter-clockwise."""
    place = next((place for place, name in PLACES.items() if name == location), None)
    for _ in range(quarters % 4 if place else 0):
        assert place is not None
        place = (place[1], 2 - place[0])
    return UNSPECIFIED if place is None else PLACES.get(place, UNSPECIFIED)

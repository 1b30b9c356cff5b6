"""Encoders in hardware: used where one really encodes a frame here, else software is.

Only NVENC is listed: QuickSync takes frames only in layouts (nv12, p010) that this pipeline does not make.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import lru_cache

import av
from av.error import FFmpegError

from .codecs import Codec, EncodeOptions, choose_format
from .errors import OutputError
from .frame import PixelFormat
from .opening import reason

log = logging.getLogger(__name__)

ENCODERS = ("auto", "software", "hardware")
NVENC = {"preset": "p5", "rc": "vbr"}
# To FFmpeg's NVENC a cq of 0 is none: the rate is then its own choice, far from the best quality.
BEST_CQ = 1
HARDWARE = {
    "h264": (Codec("h264_nvenc", 19, NVENC, even=True, quality="cq", best_crf=BEST_CQ),),
    "hevc": (Codec("hevc_nvenc", 22, NVENC, even=True, quality="cq", best_crf=BEST_CQ, codec_tag="hvc1"),),
    "av1": (Codec("av1_nvenc", 28, NVENC, even=True, quality="cq", best_crf=BEST_CQ, worst_crf=63),),
}


def choose_encoder(
    name: str, software: Codec, wanted: PixelFormat, size: tuple[int, int], options: EncodeOptions
) -> Codec:
    """The encoder of codec ``name`` for frames of (width, height): hardware that works, and keeps what
    software would keep of the layout; else software.

    Raises:
        OutputError: when hardware is asked for and there is none that does, with the reasons.
    """
    if options.encoder not in ENCODERS:
        raise OutputError(f"--encoder {options.encoder}: must be one of {', '.join(ENCODERS)}")
    reasons = []
    for candidate in HARDWARE.get(name, ()) if options.encoder != "software" else ():
        why = why_not(candidate, choose_format(software, wanted), size)
        if not why:
            return candidate
        reasons.append(f"{candidate.encoder}: {why}")
    log.debug("software encoder %s; %s", software.encoder, "; ".join(reasons) or "no other asked for")
    if options.encoder == "hardware":
        there = "; ".join(reasons) or "none is known for it"
        raise OutputError(f"--encoder hardware: no such encoder for {name} works here ({there})")
    return software


@lru_cache(maxsize=64)
def probe(encoder: str, pixel_format: str, size: tuple[int, int]) -> str:
    """Encodes a frame; returns why that failed, or nothing."""
    try:
        context = av.CodecContext.create(encoder, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height = (side + side % 2 for side in size)
        context.pix_fmt, context.time_base = pixel_format, Fraction(1, 25)
        frame = av.VideoFrame(context.width, context.height, pixel_format)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        packets = [*context.encode(frame), *context.encode(None)]
    except (FFmpegError, OSError, ValueError) as error:
        return reason(error)
    return "" if sum(packet.size for packet in packets) else "no packet came out of it"


def why_not(candidate: Codec, layout: PixelFormat, size: tuple[int, int]) -> str:
    try:
        taken = {f.name for f in av.Codec(candidate.encoder, "w").video_formats or ()}
    except (FFmpegError, ValueError) as error:
        return str(error)
    if layout.name not in taken:
        return f"does not take {layout.name}"
    return probe(candidate.encoder, layout.name, size)


def describe() -> str:
    """For ``doctor``: what works of each, at an ordinary size."""
    layout = PixelFormat("yuv420p", 8, (2, 2))
    parts = []
    for candidates in HARDWARE.values():
        for candidate in candidates:
            why = why_not(candidate, layout, (640, 480))
            parts.append(f"{candidate.encoder} ({f'not here: {why}' if why else 'works'})")
    return ", ".join(parts)

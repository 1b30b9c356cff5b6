"""One video encoder: what it is told, what it is given, and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import av
from torch import Tensor
from torch.nn import functional as F

from . import chroma
from .codecs import Codec, EncodeOptions
from .frame import Frame, Packet, PixelFormat, planes_of, to_video_frame

# No encoder decodes a frame a day before it is shown.
LONGEST_REORDER_SECONDS = 86_400


def timed(packets: Iterable[Packet]) -> Iterator[Packet]:
    """The packets, with a decoding time where the encoder left it to chance: x265 4.2 does in streams of one
    or two frames, which it does not reorder."""
    for packet in packets:
        if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
            ahead = (packet.pts - packet.dts) * packet.time_base
            if not 0 <= ahead < LONGEST_REORDER_SECONDS:
                packet.dts = packet.pts
        yield packet


def encoder_options(codec: Codec, options: EncodeOptions, first: Frame) -> dict[str, str]:
    """What the encoder is told by name; ``first`` is in the layout that it will take."""
    told = dict(codec.options) | (codec.alpha_options if first.alpha is not None else {})
    if chroma.is_420(first.format.name):
        told |= chroma.encoder_options(first.colour.chroma_location)
    if first.light:
        told |= first.light.encoder_options(codec.encoder)
    if options.bit_rate is None and codec.crf is not None:
        told[codec.quality] = str(codec.crf if options.crf is None else options.crf)
    return told


def set_up(context: av.VideoCodecContext, first: Frame, layout: PixelFormat, options: EncodeOptions) -> None:
    """Prepares an encoder for frames like ``first``, in ``layout``."""
    context.width, context.height = first.width, first.height
    context.pix_fmt = layout.name if first.alpha is None else layout.alpha_name
    context.time_base = first.time_base
    context.sample_aspect_ratio = first.sample_aspect_ratio
    context.colorspace, context.color_range = first.colour.space, first.colour.range
    context.color_primaries, context.color_trc = first.colour.primaries, first.colour.transfer
    context.bit_rate = options.bit_rate or 0  # 0: by constant quality


def fit_encoder(frame: Frame, layout: PixelFormat, even: bool) -> Frame:
    """The frame in ``layout``; where chroma is subsampled and the encoder wants whole chroma samples, the
    last row and column are repeated."""
    if frame.format != layout:
        video = to_video_frame(replace(frame, alpha=None)).reformat(format=layout.name)
        frame = replace(frame, planes=planes_of(video, layout), format=layout)
    right, bottom = frame.width % layout.subsampling[0], frame.height % layout.subsampling[1]
    if not even or not (right or bottom):
        return frame
    luma, *chroma = frame.planes
    return replace(frame, planes=[repeat_edge(luma, right, bottom), *chroma])


def repeat_edge(plane: Tensor, right: int, bottom: int) -> Tensor:
    """[H, W] -> [H + bottom, W + right]."""
    return F.pad(plane[None, None].float(), (0, right, 0, bottom), mode="replicate")[0, 0].to(plane.dtype)

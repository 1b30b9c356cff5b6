"""One video encoder: what it is told, what it is given, and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import av
from torch import Tensor
from torch.nn import functional as F

from . import chroma
from .codecs import Codec, EncodeOptions, keeps_aspect
from .frame import Frame, Packet, PixelFormat, planes_of, to_video_frame
from .scheduling import kept_scheduling

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
        told[codec.quality] = str(max(codec.best_crf, codec.crf if options.crf is None else options.crf))
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


def open_encoder(context: av.VideoCodecContext) -> None:
    """Before PyAV does so itself, at the first frame or packet: threads stay scheduled as they are."""
    with kept_scheduling():
        context.open()


def losses(first: Frame, name: str, codec: Codec, layout: PixelFormat, suffix: str) -> Iterator[str]:
    """What a codec in ``layout`` and a container can't keep of frames like ``first``, in words."""
    colour, aspect = first.colour, first.sample_aspect_ratio
    if layout != first.format:
        yield f"{name} can't hold {first.format.name}: written as {layout.name}"
    if first.light and not first.light.encoder_options(codec.encoder):
        yield f"{name} is written without HDR's mastering metadata; hevc and av1 keep it"
    if layout.subsampling == (2, 2) and not chroma.is_kept(colour.chroma_location, name, suffix):
        yield f"{name} in {suffix} does not say where chroma lies ({colour.chroma_location})"
    if colour.full_range and codec.limited:
        yield f"{name} has limited range only: converted from full range"
    if aspect != 1 and not keeps_aspect(name, suffix):
        yield f"{name} in {suffix} is written without the sample aspect ratio, {aspect}"
    if codec.even and (first.width % layout.subsampling[0] or first.height % layout.subsampling[1]):
        size = f"{first.width}x{first.height}"
        yield f"{name} needs even sizes: the last row or column of {size} is repeated"


def fit_encoder(frame: Frame, layout: PixelFormat, codec: Codec) -> Frame:
    """The frame in ``layout`` and the codec's range; where chroma is subsampled and the encoder wants whole
    chroma samples, the last row and column are repeated."""
    colour = replace(frame.colour, full_range=frame.colour.full_range and not codec.limited)
    if (frame.format, frame.colour) != (layout, colour):
        plain = to_video_frame(replace(frame, alpha=None))
        video = plain.reformat(format=layout.name, dst_color_range=colour.range)
        frame = replace(frame, planes=planes_of(video, layout), format=layout, colour=colour)
    right, bottom = frame.width % layout.subsampling[0], frame.height % layout.subsampling[1]
    if not codec.even or not (right or bottom):
        return frame
    luma, *chroma = frame.planes
    return replace(frame, planes=[repeat_edge(luma, right, bottom), *chroma])


def repeat_edge(plane: Tensor, right: int, bottom: int) -> Tensor:
    """[H, W] -> [H + bottom, W + right]."""
    return F.pad(plane[None, None].float(), (0, right, 0, bottom), mode="replicate")[0, 0].to(plane.dtype)

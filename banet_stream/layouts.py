"""Channel layouts of sound, by the names that encoders know."""

from __future__ import annotations

import av
from av.error import FFmpegError

# FFmpeg's usual layout of so many channels, where a file gives their number alone.
USUAL = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def usual_layout(layout: av.AudioLayout, *, plain: bool = False) -> str:
    """The layout's own name, or the usual one of its number of channels where it has none.

    ``plain``: surround loudspeakers beside the listener count as those behind: ``5.1(side)`` as ``5.1``.
    """
    name = layout.name
    if is_unnamed(layout):
        return USUAL.get(layout.nb_channels, name)
    return name.removesuffix("(side)") if plain else name


def is_unnamed(layout: av.AudioLayout) -> bool:
    """Whether it is a number of channels without an order: ``2 channels``."""
    return layout.name == f"{layout.nb_channels} channels"


def fitting_form(encoder: str, layout: av.AudioLayout, rate: int) -> tuple[str, int] | None:
    """The layout and sampling rate nearest to a stream's that an encoder takes; None: it takes none.

    Channels are mixed together only where the encoder has no layout of so many.
    """
    rates = av.Codec(encoder, "w").audio_rates or [rate]
    higher = [known for known in rates if known >= rate]
    rate = min(higher) if higher else max(rates)
    fewer = [name for count, name in sorted(USUAL.items(), reverse=True) if count <= layout.nb_channels]
    for name in (usual_layout(layout), usual_layout(layout, plain=True), *fewer):
        if opens(encoder, name, rate):
            return name, rate
    return None


def opens(encoder: str, layout: str, rate: int) -> bool:
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.AudioCodecContext)
    context.layout, context.sample_rate = layout, rate
    formats = context.codec.audio_formats
    if formats:
        context.format = formats[0]
    try:
        context.open()
    except (FFmpegError, ValueError):
        return False
    return True

"""Channel layouts of sound, by the names that encoders know, and sound brought into one of them."""

from __future__ import annotations

import av
from av.error import FFmpegError

# FFmpeg's usual layout of so many channels, where a file gives their number alone.
USUAL = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class Fitter:
    """Frames of sound in the one form that an encoder takes, whatever forms come one after another."""

    def __init__(self, encoder: av.AudioCodecContext) -> None:
        self._encoder = encoder
        self._form: tuple[str, str, int] | None = None  # of the frame before
        self._resampler: av.AudioResampler | None = None

    def fit(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """What the encoder gets for a frame; at a change of form first what was still held of the old one."""
        form, rest = (frame.format.name, frame.layout.name, frame.sample_rate), []
        if form != self._form or self._resampler is None:  # a resampler, too, knows one form only
            rest = self.flush()
            self._form = form
            encoder = self._encoder
            self._resampler = av.AudioResampler(encoder.format, encoder.layout, encoder.sample_rate)
        return rest + self._resampler.resample(frame)

    def flush(self) -> list[av.AudioFrame]:
        """What is still held."""
        resampler, self._resampler = self._resampler, None
        return resampler.resample(None) if resampler else []


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

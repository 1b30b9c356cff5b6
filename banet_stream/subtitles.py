"""Text subtitles in another codec, where a container can't hold theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import av
from av.error import FFmpegError
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from .frame import Packet

log = logging.getLogger(__name__)

# What MP4 and MOV take, for which FFmpeg names no codec of its choice.
USUAL_CODEC = "mov_text"


class Translator:
    """Packets of text become those of another codec, with their styles as far as it has them."""

    def __init__(self, decoder: SubtitleCodecContext, encoder: SubtitleCodecContext) -> None:
        self._decoder, self._encoder = decoder, encoder

    def translate(self, packet: Packet) -> Iterator[Packet]:
        """One packet for every line that is shown; none for a gap.

        Raises:
            FFmpegError: when it is damaged.
        """
        found = self._decoder.decode2(packet)
        if found is None or packet.pts is None or packet.time_base is None:
            return
        lasts = packet.duration or round(found.end_display_time / 1000 / packet.time_base)
        for line in found.rects:
            if isinstance(line, AssSubtitle):
                told = self._encoder.encode_subtitle(SubtitleSet.create(line.ass, 0, lasts, packet.pts))
                told.pts = told.dts = packet.pts
                told.duration, told.time_base = lasts, packet.time_base
                told.stream = packet.stream
                yield told


def add_translated(
    container: av.container.OutputContainer, stream: Stream
) -> tuple[SubtitleStream, Translator] | None:
    """A stream of the codec that a container takes, and what translates into it; None: ``stream`` is
    pictures, or says too little of itself."""
    if not isinstance(stream, SubtitleStream) or not stream.codec_context.codec.text_sub:
        return None
    decoder, name = stream.codec_context, container.default_subtitle_codec
    name = USUAL_CODEC if name == "none" else name
    try:
        decoder.open(strict=False)
        if not decoder.subtitle_header:  # of ASS without it nothing can be made
            return None
        trial = av.CodecContext.create(name, "w")
        prepare(trial, stream)
        trial.open()
    except (FFmpegError, ValueError) as error:
        log.info("subtitles in %s can't become %s: %s", decoder.name, name, error)
        return None
    added = container.add_stream(name)
    assert isinstance(added, SubtitleStream)
    prepare(added.codec_context, stream)
    return added, Translator(decoder, added.codec_context)


def prepare(encoder: av.CodecContext, stream: SubtitleStream) -> None:
    assert isinstance(encoder, SubtitleCodecContext)
    encoder.subtitle_header = stream.codec_context.subtitle_header
    if stream.time_base is not None:
        encoder.time_base = stream.time_base

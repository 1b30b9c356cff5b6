"""Sound of a live session: passed on as it is where the sink's container takes it, else encoded anew."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.error import FFmpegError

from .layouts import Fitter, fitting_form, usual_layout

log = logging.getLogger(__name__)

# What may be copied into a format. FFmpeg tells it only of some formats, so all stand here.
COPIED = {
    "rtsp": ("aac", "opus", "pcm_alaw", "pcm_mulaw", "mp3"),
    "flv": ("aac", "mp3"),
    "hls": ("aac", "mp3", "ac3"),
    "mpegts": ("aac", "mp3", "mp2", "ac3"),
    "mp4": ("aac", "mp3", "ac3", "opus"),
    "matroska": ("aac", "mp3", "mp2", "ac3", "opus", "vorbis", "flac", "pcm_s16le"),
}
# Out of MPEG-TS, AAC comes in a form (ADTS) that RTSP's muxer refuses.
NEEDS_HEADER = ("rtsp",)
# Encoders take AAC at this rate everywhere.
AAC_RATE = 48_000


@dataclass(frozen=True)
class Track:
    """What a sound stream is; it outlives the connection that it came with."""

    codec: str
    sample_rate: int
    layout: str
    header: bytes | None
    keeper: av.AudioStream  # a stream of its own, of which others are made

    @classmethod
    def of(cls, stream: av.AudioStream) -> Track:
        """The track of a source's stream."""
        context = stream.codec_context
        # In memory, never written: the source's own stream is gone when its connection is.
        keeper = av.open(io.BytesIO(), "w", format="nut").add_stream_from_template(stream)
        layout = usual_layout(context.layout)
        return cls(context.codec.canonical_name, context.sample_rate, layout, context.extradata, keeper)

    def is_like(self, other: Track) -> bool:
        """Whether packets of both may stand in one stream."""
        facts = ("codec", "sample_rate", "layout", "header")
        return all(getattr(self, f) == getattr(other, f) for f in facts)

    def may_hold(self, data: bytes) -> bool:
        """False: this is surely no packet of the track. PyAV does not say when a stream's codec changes."""
        if self.codec != "aac" or self.header:
            return True
        # Without a header elsewhere every packet has its own (ADTS, ISO/IEC 13818-7): 12 bits set, layer 0.
        return len(data) > 2 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0


@dataclass(frozen=True)
class Sound:
    """A packet of sound: a copy, so that nothing of its connection is held."""

    data: bytes
    seconds: float  # in the session
    duration: int  # in units of time_base
    time_base: Fraction
    track: Track

    @classmethod
    def of(cls, packet: av.Packet, track: Track, seconds: float) -> Sound:
        """Of a source's packet, to be heard at ``seconds``."""
        assert packet.time_base is not None
        return cls(bytes(packet), seconds, packet.duration or 0, packet.time_base, track)

    def packet(self) -> av.Packet:
        """For a muxer or decoder."""
        packet = av.Packet(self.data)
        packet.pts = packet.dts = round(self.seconds / self.time_base)
        packet.duration, packet.time_base, packet.is_keyframe = self.duration, self.time_base, True
        return packet


class Voice:
    """Sound on its way into one container.

    Args:
        container: gets the stream, before it is started.
        format: FFmpeg's name of the container that it is in the end for.

    Raises:
        FFmpegError, ValueError: when there is no encoder for it.
    """

    def __init__(self, track: Track, container: av.container.OutputContainer, format: str) -> None:
        self.track = track
        self.copied = track.codec in COPIED[format] and not (
            track.codec == "aac" and format in NEEDS_HEADER and not track.header
        )
        self.stream: av.AudioStream
        if self.copied:
            self.stream = container.add_stream_from_template(track.keeper)
        else:
            form = fitting_form("aac", av.AudioLayout(track.layout), AAC_RATE)
            if form is None:
                raise ValueError(f"no encoder for sound of {track.layout}")
            self.stream = container.add_stream("aac", rate=form[1], layout=form[0])
            self._fitter = Fitter(self.stream.codec_context)
            self._begin()

    def takes(self, track: Track) -> bool:
        """Whether sound of this kind can go on in the stream."""
        return not self.copied or track.is_like(self.track)

    def packets(self, sound: Sound) -> Iterator[av.Packet]:
        """What goes into the container for a packet of the source that it takes."""
        assert self.takes(sound.track)
        if not sound.track.is_like(self.track):
            self.track = sound.track
            self._begin()
        if self.copied:
            yield sound.packet()
            return
        try:
            frames = self._decoder.decode(sound.packet())
        except FFmpegError as error:
            log.debug("damaged sound: %s", error)
            return
        for frame in frames:
            frame.pts = round(sound.seconds * frame.sample_rate)
            frame.time_base = Fraction(1, frame.sample_rate)
            for alike in self._fitter.fit(frame):
                yield from self.stream.encode(alike)

    def _begin(self) -> None:
        """A decoder for the track."""
        decoder = av.CodecContext.create(self.track.codec, "r")
        assert isinstance(decoder, av.AudioCodecContext)
        self._decoder = decoder
        self._decoder.sample_rate, self._decoder.layout = self.track.sample_rate, self.track.layout
        if self.track.header:
            self._decoder.extradata = self.track.header

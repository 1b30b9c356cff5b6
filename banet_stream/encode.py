"""Frames and passed packets become a file of video and sound, whole or not at all."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError, InvalidDataError
from av.stream import Discard, Stream

from .codecs import (
    MOV_FAMILY,
    Codec,
    EncodeOptions,
    check_codec,
    check_rate,
    choose_codec,
    choose_format,
    muxer,
)
from .decode import Source, no_frame
from .encoder import encoder_options, fit_encoder, losses, open_encoder, set_up, timed
from .errors import OutputError
from .frame import Frame, Packet, to_video_frame
from .hardware import choose_encoder
from .hdr import is_hdr
from .layouts import Fitter, fitting_form
from .opening import DAMAGED_DATA, reason
from .output import Output, check_place, describe_size, free_part, move_into_place
from .subtitles import Translator, add_translated

if TYPE_CHECKING:
    from .photo import Photo

log = logging.getLogger(__name__)

LEFT_OUT_TYPES = ("video", "data", "attachment")
RUN_IN_SECONDS = Fraction(1, 10)
# Opus knows five sampling rates, of which this is the full one.
OPUS_RATE = 48000
MIN_HDR_DEPTH = 10
# What a later frame takes of the first one's bytes where it is coded by its difference: a rule of thumb.
INTER_SHARE = 0.1


class Sink(Output):
    """A file of video and sound, written to a part file beside it and moved into place when all is in.

    Args:
        path: the extension chooses the container.
        source: whose sound, subtitles, chapters and tags are taken over.
        alpha: the frames carry alpha, which is to be kept.
        video_only: takes over neither sound nor subtitles nor chapters.

    Raises:
        OutputError: when it can't become a file, before anything is decoded.
    """

    def __init__(
        self,
        path: str | Path,
        source: Source | Photo,
        options: EncodeOptions,
        *,
        alpha: bool = False,
        video_only: bool = False,
    ) -> None:
        super().__init__()
        self.path, self.source, self.options, self._alpha = Path(path), source, options, alpha
        check_codec(self.path, options, alpha=alpha)
        check_place(self.path, overwrite=options.overwrite)
        self._video_only = video_only
        self._container: av.container.OutputContainer | None = None
        self._video: av.VideoStream | None = None
        # By source index our stream; sound that is re-encoded has a Fitter, subtitles have a Translator.
        self._passed: dict[int, tuple[Stream, Fitter | Translator | None]] = {}
        self._last_dts: dict[int, tuple[int, int]] = {}  # of what is copied; how many came there before it
        self._sound_until: dict[int, Fraction] = {}  # of what is re-encoded, in seconds

    def write(self, item: Frame | Packet) -> None:
        """See Output."""
        if isinstance(item, Packet):
            self._pass_on(item)
            return
        assert self._video is not None, "Sink.open comes first"
        frame = fit_encoder(item, self._format, self._codec)
        self._mux(timed(self._video.encode(to_video_frame(frame))))
        self.frames += 1

    def open(self, first: Frame) -> None:
        """See Output."""
        fitted = self._lay_out(first)
        self._announce_size(fitted)
        self._create(free_part(self.path), fitted)

    def _lay_out(self, first: Frame) -> Frame:
        """Chooses codec and layout, says what can't be kept, and returns ``first`` as it will be encoded."""
        name, codec = choose_codec(self.path, self.options, first.format.depth, alpha=self._alpha)
        check_rate(name, codec, self.options)
        if first.alpha is None:
            codec = choose_encoder(name, codec, first.format, (first.width, first.height), self.options)
        self._codec, self.encoder = codec, codec.encoder
        self._format = choose_format(codec, first.format, alpha=self._alpha)
        if is_hdr(first.colour) and self._format.depth < MIN_HDR_DEPTH:
            raise OutputError(f"--codec {name}: {self._format.name} is too coarse for HDR; use hevc or av1")
        self.notices += losses(first, name, codec, self._format, self.path.suffix)
        return fit_encoder(first, self._format, codec)

    def _create(self, part: Path, first: Frame) -> None:
        """Opens the part file with all its streams."""
        self.part = part
        self._container = av.open(
            f"file:{self.part}", "w", format=muxer(self.path), options=self._mux_options()
        )
        self._video = self._add_video(self._codec, first)
        if self._video_only:
            return
        self._add_passed()
        self._container.metadata.update(lasting(self.source.metadata))
        self._container.set_chapters(self.source.chapters())

    def flush(self) -> None:
        """See Output."""
        assert self._container is not None
        assert self._video is not None
        self._mux(timed(self._video.encode(None)))
        self._flush_sound()
        self._container.close()

    def _flush_sound(self) -> None:
        for source in self.source.passed:
            stream, fitter = self._passed.get(source.index, (None, None))
            if isinstance(source, av.AudioStream) and isinstance(fitter, Fitter):
                assert isinstance(stream, av.AudioStream)
                for sound in source.codec_context.decode(None):
                    self._encode_sound(fitter.fit(sound), stream)
                self._encode_sound(fitter.flush(), stream)
                self._mux(stream.encode(None))

    def _encode_sound(self, sounds: Iterable[av.AudioFrame], stream: av.AudioStream) -> None:
        for sound in sounds:
            self._mux(stream.encode(sound))

    def finish(self) -> None:
        """See Output."""
        self._note_lost_tags()
        assert self.part is not None
        move_into_place(self.part, self.path, overwrite=self.options.overwrite)

    def _note_lost_tags(self) -> None:
        """Which tags a container has a place for, its file tells best."""
        if self._video_only or self.part is None:
            return
        with output_errors(self), av.open(f"file:{self.part}") as written:
            held = {key.lower() for key in written.metadata}
            lost = [key for key in lasting(self.source.metadata) if key.lower() not in held]
            # A track in which nothing came is not in the file, and those after it have other numbers.
            whole = len(written.streams) == 1 + len(self._passed)
            for source in self.source.passed:
                if whole and source.index in self._passed:
                    kept = written.streams[self._passed[source.index][0].index].metadata
                    names = [key for key in ("language", "title") if source.metadata.get(key, "und") != "und"]
                    lost += [f"{key} of {source.type} {source.index}" for key in names if key not in kept]
        if lost:
            names_lost = ", ".join(sorted(lost))
            self.notices.append(f"{self.path.suffix} has no place for these tags, left out: {names_lost}")

    def abandon(self, *, keep: bool) -> None:
        """See Output."""
        if self._container is not None:
            try:
                if keep and self._video is not None:
                    self._mux(self._video.encode(None))
                self._container.close()
            except (FFmpegError, OSError, ValueError) as error:
                log.debug("closing the part file: %s", error)
        if self.part is not None and not (keep and self.frames):
            self.part.unlink(missing_ok=True)
            self.part = None

    def _mux(self, packets: Iterable[Packet]) -> None:
        assert self._container is not None
        for packet in packets:
            self._container.mux(packet)

    def _mux_options(self) -> dict[str, str]:
        # The index goes to the front, so that a browser plays it while it loads.
        return {"movflags": "+faststart"} if self.path.suffix.lower() in MOV_FAMILY else {}

    def _add_video(self, codec: Codec, first: Frame) -> av.VideoStream:
        assert self._container is not None
        options = encoder_options(codec, self.options, first)
        stream = self._container.add_stream(codec.encoder, rate=self.source.info.rate or 25, options=options)
        assert isinstance(stream, av.VideoStream)
        set_up(stream.codec_context, first, self._format, self.options)
        stream.time_base = first.time_base
        if codec.codec_tag and self.path.suffix.lower() in MOV_FAMILY:
            stream.codec_context.codec_tag = codec.codec_tag
        if first.rotation:
            stream.set_display_rotation(first.rotation)
        stream.metadata.update(lasting(self.source.video_metadata))
        open_encoder(stream.codec_context)
        return stream

    def _announce_size(self, first: Frame) -> None:
        """Before files that grow large: what the first frame takes, times their number."""
        count, codec = self.source.expected_frames, self._codec
        if not (self._alpha or codec.intra) or not count:
            return
        context = self._single_encoder(first)
        packets = [*context.encode(to_video_frame(first)), *context.encode(None)]
        size = sum(packet.size for packet in packets)
        share = 1.0 if codec.intra else INTER_SHARE
        how = f"{codec.encoder}, {'' if codec.intra else 'a rough guess '}by the first one"
        if self._alpha:
            how = f"straight alpha; {how}"
        self.announce(describe_size(self.path, size * (1 + share * (count - 1)), count, how))

    def _single_encoder(self, first: Frame) -> av.VideoCodecContext:
        """An encoder like the output's, outside any file."""
        context = av.CodecContext.create(self._codec.encoder, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.options = encoder_options(self._codec, self.options, first)
        set_up(context, first, self._format, self.options)
        context.framerate = self.source.info.rate or Fraction(25)
        if int(av.format.Flags.global_header.value) & av.ContainerFormat(muxer(self.path), "w").flags:  # type: ignore[call-overload]
            context.flags |= av.codec.context.Flags.global_header
        open_encoder(context)
        return context

    def _add_passed(self) -> None:
        """Takes over sound and subtitles: copied where the container takes their codec."""
        assert self._container is not None
        for stream in self.source.passed:
            label = f"{stream.type} {stream.index} ({stream.codec_context.name})"
            why = self._why_not_copied(stream, label)
            if isinstance(stream, av.AudioStream) and not stream.codec_context.sample_rate:
                # Nothing whole was found of it, by which a file could describe it.
                self.source.note_damage(InvalidDataError(0, f"no sound found in {label}"))
                self.notices.append(f"{label} of the source can't be read: left out")
            elif not why:
                self._passed[stream.index] = (self._container.add_stream_from_template(stream), None)
            elif not self._encode_again(stream, why):
                self.notices.append(f"{why}: left out")
            if stream.index in self._passed:
                added_stream = self._passed[stream.index][0]
                added_stream.metadata.update(lasting(stream.metadata))
                added_stream.disposition = stream.disposition
        timecode = self.source.video_metadata.get("timecode")
        self.notices += notices_of_left_out(s for s in self.source.left_out if not is_timecode(s, timecode))

    def _why_not_copied(self, stream: Stream, label: str) -> str:
        """What keeps a stream's packets from being taken as they are; empty: nothing."""
        if lacks_header(stream):
            return f"{label} of the source lacks its header"
        if not holds(self.path, stream):
            return f"{self.path.suffix} can't hold {label}"
        return ""

    def _encode_again(self, stream: Stream, why: str) -> bool:
        """Adds a stream for what can't be copied, and says why; False: there is no way to encode it."""
        assert self._container is not None
        if stream.type == "subtitle":
            translated = add_translated(self._container, stream)
            if translated is not None:
                self._passed[stream.index] = translated
                self.notices.append(f"{why}: re-encoded as {translated[0].codec_context.name}")
            return translated is not None
        if not isinstance(stream, av.AudioStream) or self._container.default_audio_codec == "none":
            return False
        context, name = stream.codec_context, self._container.default_audio_codec.replace("opus", "libopus")
        form = fitting_form(name, context.layout, context.sample_rate)
        if form is None:
            return False
        layout, rate = form
        rate = OPUS_RATE if name == "libopus" else rate
        added = self._container.add_stream(name, rate=rate, layout=layout)
        assert isinstance(added, av.AudioStream)
        self._passed[stream.index] = (added, Fitter(added.codec_context))
        mixed = "" if av.AudioLayout(layout).nb_channels == context.layout.nb_channels else f", {layout}"
        self.notices.append(f"{why}: re-encoded as {name}{mixed}")
        return True

    def _pass_on(self, packet: Packet) -> None:
        entry = self._passed.get(packet.stream.index)
        if entry is None:
            return
        stream, fitter = entry
        if isinstance(fitter, Translator):
            self._translate(packet, stream, fitter)
        elif fitter:
            assert isinstance(stream, av.AudioStream)
            for sound in self.source.decode_sound(packet):
                if self._comes_next(sound, stream):
                    self._encode_sound(fitter.fit(sound), stream)
                else:
                    self.source.damaged += 1
        elif packet.pts is not None:
            self._copy(packet, stream)

    def _translate(self, packet: Packet, stream: Stream, translator: Translator) -> None:
        try:
            for told in translator.translate(packet):
                self._copy(told, stream)
        except FFmpegError as error:
            self.source.note_damage(error)

    def _copy(self, packet: Packet, stream: Stream) -> None:
        source = packet.stream
        packet.dts = packet.pts if packet.dts is None else packet.dts
        assert packet.dts is not None
        if isinstance(self.source, Source) and is_hidden(packet, self.source, self.path):
            return
        # Muxers refuse time that runs backwards, as in damaged files.
        last, together = self._last_dts.get(source.index, (packet.dts - 1, 0))
        if packet.dts < last or (packet.dts == last and not may_begin_together(packet)):
            self.source.damaged += 1
            return
        together = together + 1 if packet.dts == last else 0
        self._last_dts[source.index] = packet.dts, together
        packet.stream = stream
        try:
            if together and self.path.suffix.lower() in MOV_FAMILY:
                self._set_apart(packet, stream, together)
            self._mux([packet])
        except DAMAGED_DATA as error:  # damaged sound that the muxer looks into
            self.source.note_damage(error)

    def _set_apart(self, packet: Packet, stream: Stream, ticks: int) -> None:
        """Puts a packet so much later, in the output's own time: for muxers that want every dts to rise."""
        assert self._container is not None
        self._container.start_encoding()  # only then the stream's time base is known
        assert packet.pts is not None
        assert packet.dts is not None
        assert packet.time_base is not None
        assert stream.time_base is not None
        scale = packet.time_base / stream.time_base
        packet.pts, packet.dts = (floor(t * scale + Fraction(1, 2)) + ticks for t in (packet.pts, packet.dts))
        packet.duration, packet.time_base = round((packet.duration or 0) * scale), stream.time_base

    def _comes_next(self, sound: av.AudioFrame, stream: Stream) -> bool:
        """Whether it follows what was encoded of its stream before; muxers refuse time that runs back."""
        if sound.pts is None or sound.time_base is None:
            return True
        begins, lasts = sound.pts * sound.time_base, Fraction(sound.samples, sound.sample_rate)
        # Clocks are rounded: to a tick, which may be longer than such sound lasts.
        if begins + lasts / 2 + sound.time_base < self._sound_until.get(stream.index, begins):
            return False
        self._sound_until[stream.index] = begins + lasts
        return True


def lacks_header(stream: Stream) -> bool:
    """Of AAC in a damaged file there can be packets and nothing that says what they are.

    FFmpeg's decoder guesses that, which a player need not.
    """
    context = stream.codec_context
    return context.name == "aac" and not (context.extradata or stream.profile)


def is_timecode(stream: Stream, timecode: str | None) -> bool:
    """Whether all that a MOV's stream says is the picture's timecode, which every container here keeps: a MOV
    and MP4 in such a stream of its own, which their muxer makes."""
    return stream.type == "data" and timecode is not None and stream.metadata.get("timecode") == timecode


def notices_of_left_out(streams: Iterable[Stream]) -> Iterator[str]:
    """What is said of a source's streams that are not passed on. Phones write several of a kind."""
    # Those that FFmpeg leaves out by itself it has read: chapters' titles in MP4.
    told = [stream for stream in streams if stream.discard != Discard.all]
    for kind in LEFT_OUT_TYPES:
        numbers = [str(stream.index) for stream in told if stream.type == kind]
        if numbers:
            some, are = ("stream", "is") if len(numbers) == 1 else ("streams", "are")
            yield f"{kind} {some} {', '.join(numbers)} of the source {are} left out"
    for stream in told:
        if stream.type not in LEFT_OUT_TYPES and stream.codec_context is None:
            yield f"{stream.type} stream {stream.index} of the source, of a codec unknown here, is left out"


def holds(output: Path, stream: Stream) -> bool:
    """Whether OUTPUT's container takes a stream's packets as they are: its muxer tries, in memory.

    FFmpeg's lists of codecs don't tell: TrueHD in MP4 is refused as experimental, FLAC and Opus in MOV, and
    PCM in MP4 where its channels have no order, as in AVI.
    """
    options = {}
    if output.suffix.lower() in MOV_FAMILY and stream.codec_context.name.startswith("pcm_"):
        # So that it describes the sound in front, not at the end. For other codecs it needs packets first.
        options["movflags"] = "empty_moov"
    try:
        with av.open(io.BytesIO(), "w", format=muxer(output), options=options) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def may_begin_together(packet: Packet) -> bool:
    """Whether a packet may have the time of the one before; else it comes twice, as in a damaged file.

    Subtitles may, and what lasts no longer than a tick, by which its time is rounded: of TrueHD in Matroska
    every sixth.
    """
    return packet.stream.type == "subtitle" or (packet.duration or 0) <= 1


def is_hidden(packet: Packet, source: Source, output: Path) -> bool:
    """Whether an edit list hides this sound, and OUTPUT's container has none: it would be heard again.

    What comes just before the first picture stays: codecs need a packet or two to get going.
    """
    if not packet.is_discard or packet.pts is None or output.suffix.lower() in MOV_FAMILY:
        return False
    assert packet.time_base is not None
    return packet.pts * packet.time_base < source.origin - source.lowered_by - RUN_IN_SECONDS


def encode(
    items: Iterable[Frame | Packet], sink: Output, progress: Callable[[Frame], None] | None = None
) -> Iterator[Frame]:
    """Writes everything into ``sink``, calling ``progress`` after each frame. The pipeline's last stage.

    On an error the part file is removed; after a Ctrl-C it is closed, kept and left to the caller.

    Raises:
        InputError: when no frame came. OutputError: with the reason, when writing fails.
    """
    held: list[Packet] = []  # sound may come before the first frame, by which the file is laid out
    done = keep = False
    try:
        for item in items:
            if not sink.opened:
                if isinstance(item, Packet):
                    held.append(item)
                    continue
                with output_errors(sink):
                    sink.open(item)
                    sink.opened = True
                    for packet in held:
                        sink.write(packet)
                held.clear()
            with output_errors(sink):
                sink.write(item)
            if isinstance(item, Frame):
                if progress:
                    progress(item)
                yield item
        if sink.frames == 0 and sink.source.stop.is_set():
            return  # interrupted before the first frame: the caller says so
        if sink.frames == 0:
            raise no_frame(sink.source)
        with output_errors(sink):
            sink.flush()
        done = True
    except (KeyboardInterrupt, GeneratorExit):
        keep = True
        raise
    finally:
        if not done:
            sink.abandon(keep=keep)


@contextmanager
def output_errors(sink: Output) -> Iterator[None]:
    """What encoders, muxers and the disk raise, as OutputError with the reason."""
    try:
        yield
    except (FFmpegError, OSError, ValueError) as error:
        why = reason(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            why = f"the disk is full; {sink.after_error}"
        raise OutputError(f"{sink.path}: can't be written: {why}") from error


def lasting(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that still hold in the output: not the old file's brands, nor mkvmerge's sums over streams."""
    brands = ("MAJOR_BRAND", "MINOR_VERSION", "COMPATIBLE_BRANDS")
    sums = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS", "ENCODER")
    return {key: value for key, value in tags.items() if not key.upper().startswith(sums + brands)}

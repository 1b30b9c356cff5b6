"""Sinks: frames and passed packets become a file, whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
from av.error import FFmpegError
from av.stream import Stream
from torch.nn import functional as F

from .decode import Source, reason
from .errors import InputError, OutputError
from .frame import PIXEL_FORMATS, Frame, Packet, PixelFormat, planes_of, to_video_frame

log = logging.getLogger(__name__)

# SVT-AV1 writes its banner to standard error unless told: errors only.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True)
class Codec:
    """A video encoder and how we run it."""

    encoder: str  # FFmpeg's name
    crf: int | None  # default constant quality: hard to tell from the source; None: not an option of it
    options: dict[str, str] = field(default_factory=dict)
    worst_crf: int = 51
    even: bool = False  # refuses odd sizes with subsampled chroma
    codec_tag: str | None = None  # in MP4 and MOV


CODECS = {
    "h264": Codec("libx264", 18, {"preset": "medium"}, even=True),
    "hevc": Codec(
        "libx265", 20, {"preset": "medium", "x265-params": "log-level=error"}, even=True, codec_tag="hvc1"
    ),
    "av1": Codec("libsvtav1", 28, {"preset": "8"}, worst_crf=63, even=True),
    "vp9": Codec("libvpx-vp9", 28, {"deadline": "good", "cpu-used": "4", "row-mt": "1"}, worst_crf=63),
    "prores": Codec("prores_ks", None, {"profile": "hq"}),
    "ffv1": Codec("ffv1", None),
}
# What a container takes; its first is the default. Beyond 8 bits HEVC comes before H.264, whose
# 10-bit profile hardly any player knows.
CONTAINERS = {
    ".mp4": ("h264", "hevc", "av1", "vp9"),
    ".m4v": ("h264", "hevc"),
    ".mov": ("h264", "hevc", "prores"),
    ".mkv": ("h264", "hevc", "av1", "vp9", "prores", "ffv1"),
    ".webm": ("vp9", "av1"),
}
# Opus knows five sampling rates, of which this is the full one.
OPUS_RATE = 48000
MOV_FAMILY = (".mp4", ".m4v", ".mov")


@dataclass(frozen=True)
class EncodeOptions:
    """How the output is written; None leaves a choice to the container."""

    codec: str | None = None
    crf: int | None = None
    bit_rate: int | None = None  # bits per second
    overwrite: bool = False


class Sink:
    """OUTPUT, written to a part file beside it and moved into place when all is in.

    Args:
        path: the extension chooses the container.
        source: whose sound, subtitles, chapters and tags are taken over.

    Raises:
        OutputError: when it can't become a file, before anything is decoded.
    """

    def __init__(self, path: str | Path, source: Source, options: EncodeOptions) -> None:
        self.path, self.source, self.options = Path(path), source, options
        check_output(self.path, options)
        self.part: Path | None = None
        self.frames = 0
        self.notices: list[str] = []
        self.encoder = ""
        self._container: av.container.OutputContainer | None = None
        self._video: av.VideoStream | None = None
        self._passed: dict[int, tuple[Stream, bool]] = {}  # source index -> our stream, is it re-encoded
        self._last_dts: dict[int, int] = {}
        self._even = False

    def write(self, item: Frame | Packet) -> None:
        """Encodes a frame, or takes over a packet."""
        if isinstance(item, Packet):
            self._pass_on(item)
            return
        assert self._video is not None, "Sink.open comes first"
        frame = fit_encoder(item, self._format, self._even)
        self._mux(self._video.encode(to_video_frame(frame)))
        self.frames += 1

    def open(self, first: Frame) -> None:
        """Creates the part file for frames like ``first``."""
        name, codec = choose_codec(self.path, self.options, first)
        check_rate(name, codec, self.options)
        self.part = free_part(self.path)
        self._container = av.open(
            f"file:{self.part}", "w", format=muxer(self.path), options=self._mux_options()
        )
        self._format = choose_format(codec, first.format)
        if self._format != first.format:
            self.notices.append(f"{name} can't hold {first.format.name}: written as {self._format.name}")
        self._even = codec.even
        fitted = fit_encoder(first, self._format, self._even)
        self._video = self._add_video(codec, fitted)
        if (fitted.width, fitted.height) != (first.width, first.height):
            size = f"{first.width}x{first.height}"
            self.notices.append(f"{name} needs even sizes: the last row or column of {size} is repeated")
        self.encoder = codec.encoder
        self._add_passed()
        self._container.metadata.update(lasting(self.source.container.metadata))
        if not self.source.start_seconds and self.source.duration_seconds is None:
            self._container.set_chapters(self.source.container.chapters())

    def flush(self) -> None:
        """Encodes what the encoders still hold and closes the part file."""
        assert self._container is not None
        assert self._video is not None
        self._mux(self._video.encode(None))
        for source in self.source.passed:
            stream, again = self._passed.get(source.index, (None, False))
            if isinstance(stream, av.AudioStream) and isinstance(source, av.AudioStream) and again:
                for sound in source.codec_context.decode(None):
                    self._mux(stream.encode(sound))
                self._mux(stream.encode(None))
        self._container.close()

    def finish(self) -> None:
        """Moves the part file to OUTPUT."""
        assert self.part is not None
        if self.path.exists() and not self.options.overwrite:
            raise OutputError(f"{self.path}: came to be meanwhile; the result is in {self.part}")
        self.part.replace(self.path)

    def abandon(self, *, keep: bool) -> None:
        """Closes the part file early; ``keep`` leaves it there, playable as far as it goes."""
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
        options = dict(codec.options)
        if self.options.bit_rate is None and codec.crf is not None:
            options["crf"] = str(codec.crf if self.options.crf is None else self.options.crf)
        stream = self._container.add_stream(codec.encoder, rate=self.source.info.rate or 25, options=options)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.width, context.height = first.width, first.height
        context.pix_fmt = self._format.name
        context.time_base = stream.time_base = first.time_base
        context.sample_aspect_ratio = first.sample_aspect_ratio
        context.colorspace, context.color_range = first.colour.space, first.colour.range
        context.color_primaries, context.color_trc = first.colour.primaries, first.colour.transfer
        context.bit_rate = self.options.bit_rate or 0  # 0: by constant quality
        if codec.codec_tag and self.path.suffix.lower() in MOV_FAMILY:
            context.codec_tag = codec.codec_tag
        if first.rotation:
            stream.set_display_rotation(first.rotation)
        stream.metadata.update(lasting(self.source.video.metadata))
        return stream

    def _add_passed(self) -> None:
        """Takes over sound and subtitles: copied where the container takes their codec."""
        assert self._container is not None
        for stream in self.source.passed:
            label = f"{stream.type} {stream.index} ({stream.codec_context.name})"
            if stream.codec_context.codec.canonical_name in self._container.supported_codecs:
                self._passed[stream.index] = (self._container.add_stream_from_template(stream), False)
            elif isinstance(stream, av.AudioStream) and self._container.default_audio_codec != "none":
                name = self._container.default_audio_codec.replace("opus", "libopus")
                rate = OPUS_RATE if name == "libopus" else stream.codec_context.sample_rate
                added = self._container.add_stream(name, rate=rate, layout=stream.codec_context.layout.name)
                self._passed[stream.index] = (added, True)
                self.notices.append(f"{self.path.suffix} can't hold {label}: re-encoded as {name}")
            else:
                self.notices.append(f"{self.path.suffix} can't hold {label}: left out")
            if stream.index in self._passed:
                self._passed[stream.index][0].metadata.update(lasting(stream.metadata))
        for stream in self.source.left_out:
            if stream.type in ("data", "attachment", "video"):
                self.notices.append(f"{stream.type} stream {stream.index} of the source is left out")

    def _pass_on(self, packet: Packet) -> None:
        entry = self._passed.get(packet.stream.index)
        if entry is None:
            return
        stream, again = entry
        if again:
            for sound in self.source.decode_sound(packet):
                self._mux(stream.encode(sound))  # type: ignore[attr-defined]
        elif packet.pts is not None:
            packet.dts = packet.pts if packet.dts is None else packet.dts
            # Muxers refuse time that runs backwards, as it does in damaged files.
            if packet.dts <= self._last_dts.get(stream.index, packet.dts - 1):
                self.source.damaged += 1
                return
            self._last_dts[stream.index] = packet.dts
            packet.stream = stream
            self._mux([packet])


def encode(
    items: Iterable[Frame | Packet], sink: Sink, progress: Callable[[Frame], None] | None = None
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
            if sink.frames == 0 and sink.part is None:
                if isinstance(item, Packet):
                    held.append(item)
                    continue
                with output_errors(sink):
                    sink.open(item)
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
            raise InputError(f"{sink.source.name}: holds no video frame that can be decoded")
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
def output_errors(sink: Sink) -> Iterator[None]:
    """What encoders, muxers and the disk raise, as OutputError with the reason."""
    try:
        yield
    except (FFmpegError, OSError, ValueError) as error:
        why = reason(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; nothing is left there, make room and start again"
        raise OutputError(f"{sink.path}: can't be written: {why}") from error


def check_output(path: Path, options: EncodeOptions) -> None:
    """Everything about OUTPUT that can be known before the first frame.

    Raises:
        OutputError: naming what is wrong and what to do.
    """
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise OutputError(
            f"{path}: the extension must be one of {', '.join(CONTAINERS)}, got {suffix or 'none'!r}"
        )
    if options.codec is not None:
        if options.codec not in CODECS:
            raise OutputError(f"--codec {options.codec}: must be one of {', '.join(CODECS)}")
        if options.codec not in CONTAINERS[suffix]:
            held = ", ".join(CONTAINERS[suffix])
            raise OutputError(f"--codec {options.codec}: {suffix} can't hold it; it holds {held}")
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; name the file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; create it first")
    if path.exists() and not options.overwrite:
        raise OutputError(f"{path}: exists already; use --overwrite to replace it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write in {path.parent}")


def check_rate(name: str, codec: Codec, options: EncodeOptions) -> None:
    if codec.crf is None and (options.crf is not None or options.bit_rate is not None):
        raise OutputError(f"--codec {name}: has one quality; leave out --crf and --bitrate")
    if options.crf is not None and not 0 <= options.crf <= codec.worst_crf:
        raise OutputError(f"--crf {options.crf}: must be between 0 and {codec.worst_crf} for {name}")


def lasting(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that still hold in the output: not mkvmerge's sums over the old streams."""
    sums = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS", "ENCODER")
    return {key: value for key, value in tags.items() if not key.upper().startswith(sums)}


def choose_codec(path: Path, options: EncodeOptions, first: Frame) -> tuple[str, Codec]:
    held = CONTAINERS[path.suffix.lower()]
    name = options.codec or ("hevc" if first.format.depth > 8 and held[0] == "h264" else held[0])
    return name, CODECS[name]


def choose_format(codec: Codec, wanted: PixelFormat) -> PixelFormat:
    """``wanted`` if the encoder takes it, else the nearest it takes: first the depth goes, then chroma."""
    taken = {f.name for f in av.Codec(codec.encoder, "w").video_formats or ()}
    formats = [f for f in PIXEL_FORMATS.values() if f.name in taken]

    def loss(candidate: PixelFormat) -> tuple[bool, int, bool, int]:
        finer = [a - b for a, b in zip(candidate.subsampling, wanted.subsampling, strict=True)]
        depth = candidate.depth - wanted.depth
        return any(x > 0 for x in finer), abs(sum(finer)), depth < 0, abs(depth)

    return min(formats, key=loss)


def fit_encoder(frame: Frame, layout: PixelFormat, even: bool) -> Frame:
    """The frame in ``layout``; where chroma is subsampled and the encoder wants whole chroma samples, the
    last row and column are repeated."""
    if frame.format != layout:
        video = to_video_frame(frame).reformat(format=layout.name)
        frame = replace(frame, planes=planes_of(video, layout), format=layout)
    right, bottom = frame.width % layout.subsampling[0], frame.height % layout.subsampling[1]
    if not even or not (right or bottom):
        return frame
    luma, *chroma = frame.planes
    luma = F.pad(luma[None, None].float(), (0, right, 0, bottom), mode="replicate")[0, 0].to(luma.dtype)
    return frame.with_planes([luma, *chroma])


def muxer(path: Path) -> str:
    return {".mkv": "matroska", ".m4v": "mp4"}.get(path.suffix.lower(), path.suffix.lower()[1:])


def free_part(path: Path) -> Path:
    """Creates ``name.part.ext`` beside OUTPUT, or with a number where an interrupted run left one."""
    for number in range(1, 1000):
        label = "part" if number == 1 else f"part{number}"
        part = path.with_name(f"{path.stem}.{label}{path.suffix}")
        try:
            part.touch(exist_ok=False)
        except FileExistsError:
            continue
        return part
    raise OutputError(f"{path}: a thousand part files lie beside it; remove them")

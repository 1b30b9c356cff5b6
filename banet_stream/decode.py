"""Sources: files and URLs become frames, and packets of sound and subtitles that pass untouched."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError, InvalidDataError
from av.stream import Stream

from . import chroma, fields
from .errors import InputError
from .frame import Frame, Packet, VideoInfo
from .unpack import WholePictures

# av.open can wait for ever on a silent server.
OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS = 10.0, 10.0
# A demuxer that fails this often in a row will not recover.
MAX_READ_ERRORS = 50
# Sound and pictures rarely end together: less than this is no loss.
DURATION_SLACK_SECONDS = 0.5
PASSED_TYPES = ("audio", "subtitle")
STANDARD = "-"  # in place of a file's name: standard input


class Source:
    """An opened video: ``info``, the streams that are passed on, and what was lost while reading.

    Args:
        path: file, URL or ``-``, standard input.
        start_seconds, duration_seconds: the part to read, from the beginning of the file.
        audio: False leaves the sound out.
        deinterlace: ``auto``, ``on`` or ``off`` (fields.Deinterlacer).

    Raises:
        InputError: with the reason, when it can't be opened or has no video stream.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        audio: bool = True,
        deinterlace: str = "auto",
    ) -> None:
        if deinterlace not in fields.CHOICES:
            raise ValueError(f"deinterlace must be one of {', '.join(fields.CHOICES)}, got {deinterlace!r}")
        self.name = str(path)
        self.audio, self.deinterlace = audio, deinterlace
        self.notices: list[str] = []
        self.container = open_input(self.name)
        streams = picture_streams(self.container)
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self.container.streams})) or "nothing known"
            self.container.close()
            raise InputError(f"{self.name}: no video stream in it (it holds: {kinds})")
        self.video = streams[0]
        self.video.thread_type = "AUTO"
        passed = (s for s in self.container.streams if s.type in PASSED_TYPES and s.codec_context is not None)
        self.passed: list[Stream] = [s for s in passed if audio or s.type != "audio"]
        self.left_out = [s for s in self.container.streams if s not in (self.video, *self.passed)]
        self.info = describe(self.container, self.video)
        self.start_seconds, self.duration_seconds = start_seconds, duration_seconds
        duration = self.info.duration_seconds
        if duration is not None and start_seconds >= duration > 0:
            self.container.close()
            raise InputError(f"{self.name}: --start {start_seconds:g} lies behind its end ({duration:.2f} s)")
        self.stop = threading.Event()  # set: end as if the file ended here
        self.frames = self.packets = 0
        self.damaged = self.damaged_pictures = 0  # packets of any kind, and those of pictures
        self.read_until = 0.0  # seconds, over all streams
        self.read_error = ""
        # Times count from the first picture; sound often starts a little before it.
        self.origin = (self.video.start_time or 0) * self.info.time_base

    def reopened(self) -> Source:
        """The same part of the same file, to be read anew."""
        return Source(
            self.name,
            start_seconds=self.start_seconds,
            duration_seconds=self.duration_seconds,
            audio=self.audio,
            deinterlace=self.deinterlace,
        )

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self.container.close()

    @property
    def metadata(self) -> dict[str, str]:
        """The file's tags."""
        return dict(self.container.metadata)

    @property
    def video_metadata(self) -> dict[str, str]:
        """The video stream's tags."""
        return dict(self.video.metadata)

    def chapters(self) -> list[Any]:
        """As PyAV gives and takes them."""
        return list(self.container.chapters())

    def decode_sound(self, packet: Packet) -> list[av.AudioFrame]:
        """The packet's samples; a damaged one has none, and is counted."""
        try:
            frames: list[Any] = packet.decode()
        except FFmpegError as error:
            self.note_damage(error)
            return []
        return frames

    def note_damage(self, error: Exception) -> None:
        self.damaged += 1
        self.read_error = reason(error)

    @property
    def expected_frames(self) -> int:
        """How many frames are to come, as far as the container says; 0: unknown."""
        info = self.info
        if self.start_seconds or self.duration_seconds is not None or not info.frames:
            if info.rate is None or info.duration_seconds is None:
                return 0
            seconds = max(0.0, info.duration_seconds - self.start_seconds)
            if self.duration_seconds is not None:
                seconds = min(seconds, self.duration_seconds)
            return round(seconds * info.rate)
        return info.frames

    @property
    def lost_frames(self) -> int:
        """Frames that the source promised and did not deliver, once it was read to its end."""
        if self.start_seconds or self.duration_seconds is not None or self.stop.is_set():
            return 0
        if self.info.frames:
            # Packets, not frames, tell a cut: an edit list hides frames that are there.
            cut_off = self.packets < self.info.frames
            return self.info.frames - self.frames if cut_off else self.damaged_pictures
        # Matroska declares no count but a duration; other formats only guess theirs.
        missing = self.duration_missing
        if "matroska" in self.container.format.name and self.info.rate and missing > DURATION_SLACK_SECONDS:
            return round(missing * self.info.rate) + self.damaged_pictures
        return self.damaged_pictures

    @property
    def duration_missing(self) -> float:
        """Seconds between the last thing read and the end that the container declares."""
        if self.container.duration is None:
            return 0.0
        end = (self.container.duration + (self.container.start_time or 0)) / av.time_base
        return max(0.0, end - self.read_until)


def decode_passed(source: Source) -> Iterator[Packet]:
    """Only the packets that :func:`decode` passes on."""
    if not source.passed:
        return
    part = Part(source)
    for packet in read_packets(source, source.passed):
        base = packet.stream.time_base or Fraction(1, av.time_base)
        if packet.pts is not None and part.holds(packet.pts * base):
            yield part.shift(packet, base)


class Part:
    """What ``start_seconds`` and ``duration_seconds`` cut out of a source."""

    def __init__(self, source: Source) -> None:
        self.cut = bool(source.start_seconds)
        self.start = source.origin + exact(source.start_seconds)
        length = source.duration_seconds
        self.end = None if length is None else self.start + exact(length)
        if self.cut and source.name != STANDARD:  # a pipe is read up to there
            source.container.seek(int(self.start * av.time_base))

    def ended(self, seconds: Fraction) -> bool:
        return self.end is not None and seconds >= self.end

    def holds(self, seconds: Fraction) -> bool:
        return not (self.cut and seconds < self.start) and not self.ended(seconds)

    def ticks(self, base: Fraction) -> int:
        """By how much timestamps are lowered: with a start they begin at zero there."""
        return round(self.start / base) if self.cut else 0

    def shift(self, packet: Packet, base: Fraction) -> Packet:
        """The packet with its timestamps lowered."""
        if packet.pts is not None:
            packet.pts -= self.ticks(base)
        if packet.dts is not None:
            packet.dts -= self.ticks(base)
        return packet


def decode(source: Source) -> Iterator[Frame | Packet]:
    """Frames in presentation order, among them the packets of the passed streams, in the file's order.

    With ``start_seconds`` the timestamps begin at zero there. Damaged packets are skipped and counted
    in ``source.damaged``. The source stays open: packets on their way point into it.
    """
    part = Part(source)
    whole = WholePictures(source)
    pending = {s.index for s in (source.video, *source.passed) if s.type != "subtitle"}
    for packet in read_packets(source, [source.video, *source.passed]):
        if source.stop.is_set() or not pending:
            return
        base = packet.stream.time_base or Fraction(1, av.time_base)
        if packet.stream is not source.video:
            if packet.pts is not None and part.ended(packet.pts * base):
                pending.discard(packet.stream.index)
            elif packet.pts is not None and part.holds(packet.pts * base):
                yield part.shift(packet, base)
            continue
        for picture, pts in whole.decode(packet):
            if part.ended(pts * base):
                pending.discard(packet.stream.index)
            elif part.holds(pts * base):
                source.frames += 1
                yield whole.to_frame(picture, pts - part.ticks(base))


def exact(seconds: float) -> Fraction:
    """0.8 as 4/5, so that the frame at 0.8 s is not missed by a rounding."""
    return Fraction(seconds).limit_denominator(1_000_000)


def read_packets(source: Source, streams: Sequence[Stream]) -> Iterator[Packet]:
    """Demuxes to the end, over damaged places."""
    errors = 0
    packets = source.container.demux(streams)
    while errors < MAX_READ_ERRORS:
        try:
            packet = next(packets)
            errors = 0
            note_position(source, packet)
            yield packet
        except StopIteration:
            return
        except InvalidDataError as error:
            errors += 1
            source.note_damage(error)
            packets = source.container.demux(streams)
        except (FFmpegError, OSError) as error:
            source.read_error = reason(error)
            return


def note_position(source: Source, packet: Packet) -> None:
    if packet.stream is source.video and packet.size:
        source.packets += 1
    if packet.pts is not None and packet.time_base is not None:
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        source.read_until = max(source.read_until, end)


# --- opening -----------------------------------------------------------------------------------


def open_input(name: str) -> av.container.InputContainer:
    """``av.open`` for reading, with every failure said in words."""
    if name == STANDARD and sys.stdin.isatty():
        raise InputError("-: standard input is a terminal; pipe a video into it")
    if name != STANDARD and not is_url(name):
        check_file(name)
    target = "pipe:0" if name == STANDARD else name if is_url(name) else f"file:{name}"
    # Who writes into a pipe may take his time.
    patience = None if name == STANDARD else (OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    try:
        return av.open(target, timeout=patience)
    except InvalidDataError as error:
        raise InputError(
            f"{name}: not a video, or cut off before its index (FFmpeg can't read it: {error.strerror})"
        ) from error
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{name}: can't be opened ({reason(error)})") from error


def check_file(name: str) -> None:
    if not name:
        raise InputError("INPUT: the name is empty")
    path = Path(name)
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a directory, not a video")
        if not path.exists():
            raise InputError(f"{name}: no such file")
        with path.open("rb") as file:
            if path.is_file() and not file.read(1):
                raise InputError(f"{name}: the file is empty")
    except OSError as error:
        raise InputError(f"{name}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{name!r}: not a file name ({error})") from error


def is_url(name: str) -> bool:
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.isalnum()


def picture_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Video streams, without the cover art of a sound file, which is one of a single picture."""
    cover = av.stream.Disposition.attached_pic
    return [s for s in container.streams.video if not s.disposition & cover]


def reason(error: Exception) -> str:
    """What FFmpeg or the system says, without its number and file name."""
    return getattr(error, "strerror", None) or str(error)


def describe(container: av.container.InputContainer, video: av.VideoStream) -> VideoInfo:
    duration: float | None = None
    if video.duration is not None and video.time_base is not None:
        duration = float(video.duration * video.time_base)
    elif container.duration is not None:
        duration = container.duration / av.time_base
    return VideoInfo(
        time_base=video.time_base or Fraction(1, av.time_base),
        rate=video.average_rate or video.guessed_rate,
        frames=video.frames,
        duration_seconds=duration,
        sample_aspect_ratio=video.sample_aspect_ratio or Fraction(1),
        chroma_location=chroma.read_location(video),
    )

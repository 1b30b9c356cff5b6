"""Sources: files and URLs become frames, and packets of sound and subtitles that pass untouched."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.error import FFmpegError
from av.stream import Stream

from . import fields
from .errors import InputError
from .frame import Frame, Packet
from .opening import (
    COVER,
    DAMAGED_DATA,
    can_be_read_again,
    check_matrix,
    describe,
    local_path,
    open_input,
    picture_streams,
    reason,
    tagged_end,
)
from .seams import delay, seams_in
from .unpack import WholePictures

if TYPE_CHECKING:
    from .photo import Photo

# A demuxer that fails this often in a row will not recover.
MAX_READ_ERRORS = 50
# Sound and pictures rarely end together: less than this is no loss.
DURATION_SLACK_SECONDS = 0.5
# Where not every frame has a time, FFmpeg guesses some by half a frame wrong after a seek, until one has.
SETTLING_SECONDS = {"mpeg": 1}
# Less than this is what an edit list's coarser clock rounds away.
TRIMMED_FRAMES = 0.5
JOINED = "its clock jumps on the way: what follows is put right behind"
PASSED_TYPES = ("audio", "subtitle")
# Broadcasts' clocks run for a day, streams' from where one began to record: players would wait for so long.
LATE_CLOCK_SECONDS = 5
# How far behind the pictures sound may lie in a file: so long FFmpeg's muxers wait for a track (their
# max_interleave_delta).
INTERLEAVING_SECONDS = 10


class Source:
    """An opened video: ``info``, the streams that are passed on, and what was lost while reading.

    Args:
        path: file, URL (``file:`` as well) or ``-``, standard input.
        start_seconds, duration_seconds: the part to read, from the beginning of the file.
        audio: False leaves the sound out.
        deinterlace: ``auto``, ``on`` or ``off`` (fields.Deinterlacer).
        stop: once set, the source ends where it is; while it waits for a pipe to open, too.

    Raises:
        InputError: with the reason, when it can't be opened or has no video stream.
        Interrupted: ``stop`` was set while a pipe gave nothing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        audio: bool = True,
        deinterlace: str = "auto",
        stop: threading.Event | None = None,
    ) -> None:
        if deinterlace not in fields.CHOICES:
            raise ValueError(f"deinterlace must be one of {', '.join(fields.CHOICES)}, got {deinterlace!r}")
        self.name = local_path(str(path))
        self.audio, self.deinterlace = audio, deinterlace
        self.notices: list[str] = []
        self.stop = stop or threading.Event()  # set: end as if the file ended here
        self._open()
        self.info = describe(self.container, self.video)
        self.start_seconds, self.duration_seconds = start_seconds, duration_seconds
        duration = self.info.duration_seconds
        if duration is not None and start_seconds >= duration > 0:
            self.container.close()
            raise InputError(f"{self.name}: --start {start_seconds:g} lies behind its end ({duration:.2f} s)")
        self.frames = self.packets = 0
        self.damaged = self.damaged_pictures = 0  # packets of any kind, and those of pictures
        self.read_until = self.pictures_until = 0.0  # seconds; read_until: over all streams
        self.discarded = 0  # packets of pictures that FFmpeg reads only for others that need them
        self.read_error = ""
        self.broken_off = False  # reading ended by an error: what was still to come nobody knows
        # Times count from the first picture; sound often starts a little before it.
        self.origin = (self.video.start_time or 0) * self.info.time_base
        self.start = self.origin + exact(start_seconds)
        self.lowered_by = self.start if start_seconds else self._odd_clock()  # all timestamps, in seconds
        if start_seconds and can_be_read_again(self.name):  # a pipe is read up to there
            self._go_to_start()

    def _open(self) -> None:
        self.container = open_input(self.name, self.stop)
        streams = picture_streams(self.container)
        if not streams:
            kinds = ", ".join(sorted({s.type for s in self.container.streams})) or "nothing known"
            self.container.close()
            raise InputError(f"{self.name}: no video stream in it (it holds: {kinds})")
        self.video = streams[0]
        check_matrix(self.name, self.video)
        self.video.thread_type = "AUTO"
        passed = (s for s in self.container.streams if s.type in PASSED_TYPES and s.codec_context is not None)
        self.passed: list[Stream] = [s for s in passed if self.audio or s.type != "audio"]
        self.left_out = [s for s in self.container.streams if s not in (self.video, *self.passed)]

    def _odd_clock(self) -> Fraction:
        """When the first of all streams begins, if that is late or pictures come before zero, where MP4 hides
        them; zero otherwise."""
        read = [s for s in (self.video, *self.passed) if s.type != "subtitle"]
        begins = [s.start_time * s.time_base for s in read if s.start_time is not None and s.time_base]
        first = min(begins, default=Fraction(0))
        if first <= LATE_CLOCK_SECONDS and self.origin >= 0:
            return Fraction(0)
        self.notices.append(f"its clock begins at {float(first):.1f} s; here it begins at zero")
        return first

    def _go_to_start(self) -> None:
        """Goes to where all that is shown from the start on can be decoded: to the top, if need be.

        Raw streams can't seek at all, and in MPEG-TS and MPEG-PS it ends between key frames.
        """
        back, settled = Fraction(0), self.start - SETTLING_SECONDS.get(self.container.format.name, 0)
        with suppress(FFmpegError, OSError):
            while self.start - back > self.origin:
                place = int((self.start - back) * av.time_base)
                self.container.seek(place)
                first = self._first_shown()
                if first is not None and first <= settled:
                    self.container.seek(place)
                    return
                back = 2 * back + 1
        self.container.close()
        self._open()

    def _first_shown(self) -> Fraction | None:
        """When the first picture is shown that can be decoded from here; None: not before the start."""
        base = self.info.time_base
        for packet in self.container.demux(self.video):
            late = not packet.size or (packet.dts is not None and packet.dts * base > self.start)
            with suppress(FFmpegError):  # damaged, or it needs what lies before it
                for picture in self.video.decode(None if late else packet):
                    if picture.pts is not None:
                        return picture.pts * base
            if late:
                break
        return None

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
        """Of the part that is read, and on its clock; as PyAV gives and takes them."""
        end = None if self.duration_seconds is None else self.start + exact(self.duration_seconds)
        kept = (cut(chapter, self.lowered_by, end) for chapter in self.container.chapters())
        return [chapter for chapter in kept if chapter["start"] < chapter["end"]]

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

    def note_once(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    @property
    def expected_frames(self) -> int:
        """How many frames are to come, as far as the container says; 0: unknown."""
        info = self.info
        if self.start_seconds or self.duration_seconds is not None or not info.frames or self.trimmed:
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
        if self.info.frames and (self.packets >= self.info.frames or not self.trimmed):
            # Packets, not frames, tell a cut: an edit list hides frames that are there.
            cut_off = self.packets < self.info.frames
            return self.info.frames - self.frames if cut_off else self.damaged_pictures
        until = self.pictures_until if self.info.frames else self.read_until
        missing = max(0.0, (self.promised_end or 0.0) - until)
        if self.info.rate and missing > DURATION_SLACK_SECONDS:
            return round(missing * self.info.rate) + self.damaged_pictures
        return self.damaged_pictures

    @property
    def loss(self) -> str:
        """What of it was lost, in words, once it was read to its end; empty: nothing."""
        lost = self.lost_frames
        if not (lost or self.damaged or self.broken_off):
            return ""
        frames = f"{lost} of {self.frames + lost} frames lost"
        if self.broken_off and not lost:
            frames = "an unknown number of frames lost"
        why = f" ({self.read_error})" if self.read_error else ""
        return f"{self.name}: cut off or damaged{why}: {frames}, {self.damaged} damaged packets"

    @property
    def trimmed(self) -> bool:
        """Whether an edit list shows only a part of the file's frames: of the others FFmpeg reads few.

        The average rate is that of all frames, the duration that of the part.
        """
        info = self.info
        if self.discarded or not info.rate or info.duration_seconds is None:
            return self.discarded > 0
        return info.frames - info.duration_seconds * info.rate > TRIMMED_FRAMES

    @property
    def promised_end(self) -> float | None:
        """Seconds at which the last of the streams that are read ends; None where the format only guesses."""
        if self.info.frames:  # of the pictures; from zero on, as FFmpeg counts what an edit list delays
            return self.info.duration_seconds
        if self.container.format.name == "avi":
            return float(self.video.frames * self.info.time_base)
        if "matroska" not in self.container.format.name or self.container.duration is None:
            return None
        end = self.container.duration / av.time_base
        tags = [tagged_end(s) for s in (self.video, *self.passed)]
        told = [seconds for seconds in tags if seconds is not None]
        if len(told) == len(tags):
            return min(end, max(told))
        # The end of the whole may be that of a stream that is not read.
        unread = any(s.type in ("video", *PASSED_TYPES) and not s.disposition & COVER for s in self.left_out)
        return None if unread else end


def no_frame(source: Source | Photo) -> InputError:
    """The error to raise where a source was read and gave nothing."""
    why = f" ({source.read_error})" if source.read_error else ""
    return InputError(f"{source.name}: holds no video frame that can be decoded{why}")


def decode_passed(source: Source) -> Iterator[Packet]:
    """Only the packets that :func:`decode` passes on."""
    if not source.passed:
        return
    part = Part(source)
    shared = [source.video, *source.passed]  # as decode() reads them: the clock is theirs together
    for packet in read_packets(source, shared):
        base = packet.stream.time_base or Fraction(1, av.time_base)
        if packet.stream is source.video:
            if part.left_behind(packet, base):
                return
            continue
        if packet.pts is not None and part.holds(packet.pts * base):
            yield part.shift(packet, base)


class Part:
    """What ``start_seconds`` and ``duration_seconds`` cut out of a source."""

    def __init__(self, source: Source) -> None:
        self.cut = bool(source.start_seconds)
        self.start, self.lowered_by = source.start, source.lowered_by
        length = source.duration_seconds
        self.end = None if length is None else self.start + exact(length)

    def ended(self, seconds: Fraction) -> bool:
        return self.end is not None and seconds >= self.end

    def holds(self, seconds: Fraction) -> bool:
        return not (self.cut and seconds < self.start) and not self.ended(seconds)

    def left_behind(self, picture: Packet, base: Fraction) -> bool:
        """Whether a packet of pictures lies so far beyond the end that no sound of the part follows it."""
        ticks = picture.pts if picture.dts is None else picture.dts
        return ticks is not None and self.ended(ticks * base - INTERLEAVING_SECONDS)

    def ticks(self, base: Fraction) -> int:
        """By how much timestamps are lowered."""
        return round(self.lowered_by / base)

    def shift(self, packet: Packet, base: Fraction) -> Packet:
        """The packet with its timestamps lowered."""
        delay(packet, -self.ticks(base))
        return packet


def decode(source: Source) -> Iterator[Frame | Packet]:
    """Frames in presentation order, among them the packets of the passed streams, in the file's order.

    With ``start_seconds`` the timestamps begin at zero there, and so they do where the file's begin before it
    or later than ``LATE_CLOCK_SECONDS``; where they jump they go on (``seams``). Damaged packets are skipped
    and counted in ``source.damaged``. The source stays open: packets on their way point into it.
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
        if packet.stream.index not in pending:
            if part.left_behind(packet, base):
                return
            continue
        for picture, pts in whole.decode(packet):
            if part.ended(pts * base):
                pending.discard(packet.stream.index)
            elif part.holds(pts * base):
                source.frames += 1
                yield whole.to_frame(picture, pts - part.ticks(base))


def cut(chapter: Any, begin: Fraction, end: Fraction | None) -> dict[str, Any]:
    """What of a chapter lies between two times in seconds, counted from the first (if nothing does, it ends
    before it begins)."""
    base = chapter["time_base"]
    first = round(begin / base)
    last = chapter["end"] if end is None else min(chapter["end"], round(end / base))
    return {**chapter, "start": max(chapter["start"], first) - first, "end": last - first}


def exact(seconds: float) -> Fraction:
    """0.8 as 4/5, so that the frame at 0.8 s is not missed by a rounding."""
    return Fraction(seconds).limit_denominator(1_000_000)


def demux(
    container: av.container.InputContainer, streams: Sequence[Stream], damaged: Callable[[Exception], None]
) -> Iterator[Packet]:
    """Packets to the end, over damaged places, each of which is told to ``damaged``.

    Raises:
        FFmpegError, OSError: what ends reading, such as a broken connection or MAX_READ_ERRORS in a row.
    """
    errors = 0
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except DAMAGED_DATA as error:
            errors += 1
            damaged(error)
            if errors >= MAX_READ_ERRORS:
                raise
            packets = container.demux(streams)
        else:
            errors = 0
            yield packet


def read_packets(source: Source, streams: Sequence[Stream]) -> Iterator[Packet]:
    """What is to be decoded or passed on; how reading ended is noted in the source."""
    seams = seams_in(source.container)
    try:
        for packet in demux(source.container, streams, source.note_damage):
            kept = seams is None or seams.place(packet)
            note_position(source, packet)
            if seams is not None and seams.found:
                source.note_once(JOINED)
            if kept:
                yield packet
    except DAMAGED_DATA:
        pass
    except (FFmpegError, OSError) as error:
        source.read_error = reason(error)
        source.broken_off = not source.stop.is_set()


def note_position(source: Source, packet: Packet) -> None:
    picture = packet.stream is source.video and packet.size > 0
    source.packets += picture
    source.discarded += picture and packet.is_discard
    end = end_seconds(packet)
    source.read_until = max(source.read_until, end)
    if picture:
        source.pictures_until = max(source.pictures_until, end)


def end_seconds(packet: Packet) -> float:
    """When what a packet holds is over; where it has no time, before all that has one."""
    if packet.pts is None or packet.time_base is None:
        return -math.inf
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)

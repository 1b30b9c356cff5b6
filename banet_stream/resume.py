"""``--resume``: video is encoded in segments that outlive a crash, and joined with the sound at the end."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import av
from av.error import FFmpegError

from .background import Background
from .codecs import EncodeOptions
from .decode import Source, decode, decode_passed, no_frame
from .encode import Sink
from .encoder import fit_encoder
from .errors import InputError
from .frame import Frame, Packet, to_video_frame
from .matting import MatteStream
from .opening import can_be_read_again
from .output import move_into_place
from .segments import SEGMENT_BYTES, SEGMENT_FRAMES, Segments

# Frames before the joint that are matted again, not composited: the matte's memory of the past fades by a
# third with each (matting.STEADY), so after these it is as if nothing had happened. (But the region that the
# network looks at is chosen anew there.)
WARM_UP_FRAMES = 16


class ResumableSink(Sink):
    """A file like Sink's, made from segments. ``facts``: what the result depends on, beside the options."""

    def __init__(
        self, path: str | Path, source: Source, options: EncodeOptions, facts: dict[str, str], *, alpha: bool
    ) -> None:
        super().__init__(path, source, options, alpha=alpha)
        if not can_be_read_again(source.name):
            raise InputError(f"{source.name}: --resume needs a file, which it can read again")
        self._segments = Segments(self.path, facts)
        self._joined = self._segments.folder / f"joined{self.path.suffix}"
        self.frames = self.resumed_frames = self._segments.frames
        self._encoder: av.VideoCodecContext | None = None
        self._packets: list[Packet] = []
        self._encoded = self._bytes = 0
        if self.resumed_frames:
            self.part = self._segments.folder
            self.notices.append(f"went on after the {self.resumed_frames} frames of an earlier run")

    after_error = "make room and give the same command: it goes on where it stopped"

    def close(self) -> None:
        """See Output."""
        self._segments.close()

    @property
    def done_pts(self) -> int | None:
        """The last frame that needs no more work."""
        return self._segments.last_pts

    def open(self, first: Frame) -> None:
        """See Output."""
        self._first = self._lay_out(first)
        self._announce_size(self._first)

    def write(self, item: Frame | Packet) -> None:
        """See Output; packets are read again when all is joined."""
        if isinstance(item, Packet):
            return
        if self._encoder is None:
            self._encoder = self._single_encoder(self._first)
        frame = fit_encoder(item, self._format, self._codec)
        self._keep(self._encoder.encode(to_video_frame(frame)))
        self._encoded += 1
        self.frames += 1
        if self._encoded >= SEGMENT_FRAMES or self._bytes >= SEGMENT_BYTES:
            self._end_segment()

    def flush(self) -> None:
        """See Output."""
        self._end_segment()
        if not self.source.stop.is_set():
            self._read_and_join()
        if self.source.stop.is_set():  # interrupted, perhaps while joining: the segments stay
            self.abandon(keep=True)

    def _read_and_join(self) -> None:
        """Reads the source once more, for its sound."""
        before = self.source
        assert isinstance(before, Source)
        with closing(before.reopened()) as again:
            self.source = again
            try:
                self._join()
            finally:
                self.source = before
        before.damaged = max(before.damaged, again.damaged)
        before.broken_off = before.broken_off or again.broken_off
        before.read_error = before.read_error or again.read_error

    def finish(self) -> None:
        """See Output."""
        self._note_lost_tags()
        assert self.part is not None
        move_into_place(self.part, self.path, overwrite=self.options.overwrite)
        self._segments.remove()

    def abandon(self, *, keep: bool) -> None:
        """Finished segments stay in any case; after Ctrl-C what was encoded becomes one more."""
        with suppress(FFmpegError, OSError, ValueError):  # a full disk: the error told is the first one
            if self._container is not None:
                self._container.close()
            elif keep:
                self._end_segment()
        self._joined.unlink(missing_ok=True)
        self.frames = self._segments.frames
        self.part = self._segments.folder if self.frames else None

    def _keep(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            self._packets.append(packet)
            self._bytes += packet.size

    def _end_segment(self) -> None:
        if self._encoder is None:
            return
        self._keep(self._encoder.encode(None))
        self._segments.add(self._packets)
        self._encoder, self._packets, self._encoded, self._bytes = None, [], 0, 0

    def _join(self) -> None:
        """Copies all segments and the source's sound into one file, in order of time."""
        self._create(self._joined, self._first)
        assert self._video is not None
        time_base = self._first.time_base
        pictures = self._segments.packets(time_base)
        for packet in heapq.merge(pictures, decode_passed(self.source), key=decoding_seconds):  # type: ignore[arg-type]
            if packet.stream is None:
                packet.stream = self._video
                self._mux([packet])
            else:
                self._pass_on(packet)
        self._flush_sound()
        assert self._container is not None
        self._container.close()


def decoding_seconds(packet: Packet) -> float:
    ticks = packet.dts if packet.dts is not None else packet.pts
    return float((ticks or 0) * (packet.time_base or 0))


def first_frame(source: Source) -> Frame:
    """The frame by which everything is laid out.

    Raises:
        InputError: when there is none.
    """
    with closing(source.reopened()) as again:
        for item in decode(again):
            if isinstance(item, Frame):
                return item.with_planes([plane.clone() for plane in item.planes])
        raise no_frame(again)


def decode_rest(
    items: Iterable[Frame | Packet], done_pts: int | None, stream: MatteStream
) -> Iterator[Frame | Packet]:
    """Frames after ``done_pts``. ``stream`` is shown the last of those before, so that it remembers them."""
    last: deque[Frame] = deque(maxlen=WARM_UP_FRAMES)
    for item in items:
        if done_pts is None or isinstance(item, Packet):
            yield item
        elif item.pts <= done_pts:
            last.append(item)
        else:
            while last:
                stream.matted(last.popleft())
            done_pts = None
            yield item


def run_facts(
    source: Source,
    background: str | Path | Background,
    light_wrap: float,
    engine: str,
    options: EncodeOptions,
) -> dict[str, str]:
    """All that the frames of a run depend on, to be compared with an earlier one's."""
    named = type(background).__name__ if isinstance(background, Background) else str(background)
    return {
        "INPUT": f"{source.name} {file_facts(source.name)}",
        "--bg": f"{named} {file_facts(named)}",
        "--light-wrap": f"{light_wrap:g}",
        "--start": str(source.start_seconds),
        "--duration": str(source.duration_seconds),
        "--deinterlace": source.deinterlace,
        "--codec": str(options.codec),
        "--crf": str(options.crf),
        "--bitrate": str(options.bit_rate),
        "--encoder": options.encoder,
        "matte": engine,
        "version": f"{version('banet-stream')}, FFmpeg {av.ffmpeg_version_info}",
    }


def file_facts(name: str) -> str:
    """A file's size and time of change; nothing for what is none."""
    try:
        facts = Path(name).stat()
    except (OSError, ValueError):
        return ""
    return f"({facts.st_size} bytes, {facts.st_mtime_ns})"

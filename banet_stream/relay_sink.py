"""The sink for servers, playlists and files: encoders here, and a process that writes (relay.py)."""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
from av.error import FFmpegError

from . import chroma, relay
from .contract import DAMAGED, Contract
from .frame import to_video_frame
from .kinds import Kind, Place
from .live_source import LiveFrame
from .opening import reason
from .redact import redact
from .sinks import ASSUMED_RATE, CLOSE_SECONDS, Sink, SinkLost, SinkOptions, Start
from .sound import Sound, Track, Voice

log = logging.getLogger(__name__)

# Frames that may be on their way to a sink's process at a time: beyond them the sink is too slow.
MAX_IN_FLIGHT = 3
KEY_FRAME_SECONDS = 2.0
# Bits per pixel that H.264 needs at most for a talking head; bursts beyond are spread over a second.
PEAK_BITS_PER_PIXEL = 0.12
DEFAULT_CRF = 23
# A process may take this long to start on a busy machine; its own timer begins after that.
START_SECONDS = 15.0
# How often a wait for a sink's process looks at the request to stop.
LOOK_SECONDS = 0.1


class RelaySink(Sink):
    """A container that is written by a process of its own (relay.py): nothing it does can hold us up.

    Args:
        stop: once set, opening ends with SinkLost.

    Raises:
        SinkLost: when it can't be opened.
    """

    def __init__(
        self, place: Place, options: SinkOptions, contract: Contract, start: Start, stop: threading.Event
    ) -> None:
        assert place.format is not None
        self.place, self.options, self._contract = place, options, contract
        self._in_flight: deque[tuple[float, bool]] = deque()  # when captured, whether a filler
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last_key_seconds = start.first.pts_seconds
        self._last_dts: dict[int, Fraction] = {}
        self._refused: Track | None = None  # sound that has been said to be left out
        # In memory: it holds the encoders, and what it wrote by the first picture tells the relay of them.
        seed = io.BytesIO()
        try:
            packets = self._encode_first(seed, start, place.format)
        except (FFmpegError, ValueError, OverflowError) as error:
            raise SinkLost(f"the encoder refuses ({reason(error)})") from error
        written = Path(place.url)
        in_folder = place.kind is Kind.HLS
        url = written.name if in_folder else place.url
        self._process = start_relay(written.parent if in_folder else None)
        try:
            self._listener = threading.Thread(target=self._listen, name="banet-relay", daemon=True)
            self._listener.start()
            self._send((url, place.format, place.options, seed.getvalue(), options.timeout_seconds))
            self._wait("ready", options.timeout_seconds + START_SECONDS, stop)
            self._in_flight.append((start.first.captured_seconds, start.filler))
            self._send_all(0, packets)
        except BaseException:
            self.kill()
            raise
        self.encoder = self._video.codec_context.name

    def _encode_first(self, seed: io.BytesIO, start: Start, format: str) -> list[av.Packet]:
        with av.open(seed, "w", format="nut") as container:
            self._video = add_video(container, start.first, self.options, start.rate or ASSUMED_RATE)
            self._voice = Voice(start.track, container, format) if start.track else None
            packets = self._video.encode(to_video_frame(start.first))
            for packet in packets:
                container.mux(copy_of(packet, self._video))
        return packets

    def write(self, frame: LiveFrame, *, filler: bool) -> bool:
        """See Sink."""
        self.idle()
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return False
        picture = to_video_frame(frame)
        if frame.pts_seconds - self._last_key_seconds >= KEY_FRAME_SECONDS:
            self._last_key_seconds = frame.pts_seconds
            picture.pict_type = av.video.frame.PictureType.I
        try:
            packets = self._video.encode(picture)
        except (FFmpegError, ValueError) as error:
            raise SinkLost(f"the encoder failed ({error})") from error
        self._in_flight.append((frame.captured_seconds, filler))
        self._send_all(0, packets)
        return True

    def hear(self, sound: Sound) -> None:
        """See Sink."""
        if self._voice is not None and self._voice.takes(sound.track):
            self._send_all(1, list(self._voice.packets(sound)))
        elif self.place.kind is not Kind.FILE:
            raise SinkLost(f"the source has other sound now ({sound.track.codec})")  # to begin with it
        elif self._refused is not sound.track:
            self._refused = sound.track
            began = f"with {self._voice.track.codec}" if self._voice else "without"
            log.warning(
                "%s: the source's sound (%s) is left out: the file began %s",
                self.place.name,
                sound.track.codec,
                began,
            )

    def idle(self) -> None:
        """See Sink."""
        while not self._answers.empty():
            self._fail_on(self._answers.get())

    def close(self) -> None:
        """See Sink."""
        try:
            self._send(None)
            self._wait("closed", CLOSE_SECONDS, threading.Event())
        except SinkLost as error:
            log.debug("%s: closing: %s", self.place.name, error)
        self.kill()

    def kill(self) -> None:
        """See Sink."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _send_all(self, stream: int, packets: list[av.Packet]) -> None:
        for packet in packets:
            if packet.pts is None or packet.time_base is None:
                continue
            dts = packet.pts if packet.dts is None else packet.dts
            # Muxers refuse time that does not go forward.
            if dts * packet.time_base <= self._last_dts.get(stream, Fraction(-1)):
                continue
            self._last_dts[stream] = dts * packet.time_base
            self._send((stream, bytes(packet), packet.pts, dts, packet.time_base, packet.is_keyframe))

    def _send(self, message: Any) -> None:
        pipe: IO[bytes] | None = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(pickle.dumps(message))
            pipe.flush()
        except (OSError, ValueError) as error:  # ValueError: killed from another thread
            raise SinkLost(self._last_words()) from error

    def _listen(self) -> None:
        """In a thread: what the relay says, until it ends."""
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # closed by kill
            for line in self._process.stdout:
                word, _, rest = line.decode().strip().partition(" ")
                if word == "done":
                    captured, filler = self._in_flight.popleft()
                    if not filler:
                        self._contract.show(float(rest) - captured)
                elif word == "refused":
                    self._contract.drop(DAMAGED)
                else:
                    self._answers.put(f"{word} {rest}".strip())
        self._answers.put("gone")

    def _wait(self, wanted: str, seconds: float, stop: threading.Event) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stop.is_set():
            try:
                answer = self._answers.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if answer == wanted:
                return
            self._fail_on(answer)
        raise SinkLost(f"did not answer within {seconds:g} s")

    def _fail_on(self, answer: str) -> None:
        if answer.startswith("error "):
            raise SinkLost(redact(answer.removeprefix("error ")))
        if answer == "gone":
            raise SinkLost(self._last_words())

    def _last_words(self) -> str:
        """Why the relay's process is gone."""
        for _ in range(self._answers.qsize()):
            answer = self._answers.get()
            if answer.startswith("error "):
                return redact(answer.removeprefix("error "))
        try:
            code = self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return "stopped taking data"
        if code == -signal.SIGALRM:
            return f"did not answer within {self.options.timeout_seconds:g} s"
        return f"its process ended (code {code})"


def start_relay(folder: Path | None) -> subprocess.Popen[bytes]:
    """The process, in a session of its own: Ctrl-C in the terminal is ours to handle. The URL, which may hold
    a password, goes through the pipe and not into the list of processes.

    Args:
        folder: where it works; None: where we do.

    Raises:
        SinkLost: when it can't be started there.
    """
    try:
        return subprocess.Popen(
            [sys.executable, "-I", str(Path(relay.__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise SinkLost(f"its writer can't be started ({error.strerror})") from error


def add_video(
    container: av.container.OutputContainer, first: LiveFrame, options: SinkOptions, rate: Fraction
) -> av.VideoStream:
    """H.264 that gives every frame at once: no reordering, no look-ahead."""
    peak = options.bit_rate or int(first.width * first.height * rate * PEAK_BITS_PER_PIXEL) + 100_000
    settings = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "bf": "0",
        "g": str(round(KEY_FRAME_SECONDS * rate)),
        "maxrate": str(peak),
        "bufsize": str(peak),
        "x264-params": "repeat-headers=1",  # a viewer may come at any time
    }
    if not options.bit_rate:
        settings["crf"] = str(DEFAULT_CRF if options.crf is None else options.crf)
    settings |= chroma.encoder_options(first.colour.chroma_location)
    stream = container.add_stream("libx264", rate=rate, options=settings)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
    context.time_base = stream.time_base = first.time_base
    context.sample_aspect_ratio = first.sample_aspect_ratio
    context.colorspace, context.color_range = first.colour.space, first.colour.range
    context.color_primaries, context.color_trc = first.colour.primaries, first.colour.transfer
    context.bit_rate = options.bit_rate or 0
    return stream


def copy_of(packet: av.Packet, stream: av.stream.Stream) -> av.Packet:
    """A packet that a muxer may change."""
    copied = av.Packet(bytes(packet))
    copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
    copied.is_keyframe, copied.stream = packet.is_keyframe, stream
    return copied

"""A live source whose picture and sound mark the same moments, so that a recording tells their step.

Once in PERIOD_SECONDS the picture flashes white and a tone begins. It is served as MPEG-TS over TCP, to one
viewer at a time, from the beginning; it can fall silent as behind a cut network, and change in mid-stream.
"""

from __future__ import annotations

import contextlib
import functools
import io
import select
import socket
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Whole numbers of frames at 15, 25 and 30 fps, of AAC's 1024 samples and of Opus's 960.
PERIOD_SECONDS = Fraction(8, 5)
MARK_SECONDS = 0.2
BRIGHT_LUMA, LOUD = 150.0, 0.1
# A mark in the sound belongs to one in the picture that is at most so far.
SAME_MARK_SECONDS = 0.5
LOOK_SECONDS = 0.05
# A viewer that takes nothing for so long is left.
SEND_SECONDS = 5.0
MPEG_TIME_BASE = Fraction(1, 90_000)
# Every packet at once: MPEG-TS otherwise gathers sound.
PROMPT = {"flush_packets": "1", "pes_payload_size": "0"}


@dataclass(frozen=True)
class Camera:
    """What is served. ``codec`` and ``sound`` are FFmpeg's encoders; ``sound`` None: a silent camera."""

    codec: str = "libx264"
    width: int = 160
    height: int = 120
    rate: int = 25
    sound: str | None = "aac"
    sample_rate: int = 48_000
    first_pid: int = 256  # MPEG-TS's number of the picture; the sound's follows


@functools.cache
def encoded(camera: Camera) -> bytes:
    """Three periods as a NUT file: the middle one follows itself without a seam."""
    target = io.BytesIO()
    frames = int(PERIOD_SECONDS * camera.rate)
    with av.open(target, "w", format="nut") as container:
        options = {"g": str(frames), "bf": "0"}
        if camera.codec in ("libx264", "libx265"):
            options |= {"preset": "ultrafast", "tune": "zerolatency"}
        if camera.codec == "libx265":
            options["x265-params"] = f"keyint={frames}:min-keyint={frames}:log-level=none"
        video = container.add_stream(camera.codec, rate=camera.rate, options=options)
        video.width, video.height, video.pix_fmt = camera.width, camera.height, "yuv420p"
        sound = None
        if camera.sound:
            sound = container.add_stream(camera.sound, rate=camera.sample_rate, layout="mono")
        for number in range(3 * frames):
            container.mux(video.encode(picture(camera, number, Fraction(number % frames, camera.rate))))
            if sound is not None:
                container.mux(sound.encode(tone(camera, number)))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return target.getvalue()


def picture(camera: Camera, number: int, into_period: Fraction) -> av.VideoFrame:
    """A grey gradient that moves; white at the beginning of a period."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    shown = ((rows + columns + 4 * number) % 64 + 40).astype(np.uint8)
    if into_period < MARK_SECONDS:
        shown = np.full_like(shown, 255)
    frame = av.VideoFrame.from_ndarray(shown, format="gray").reformat(format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, camera.rate)
    return frame


def tone(camera: Camera, number: int) -> av.AudioFrame:
    """The sound of one frame's time: a tone at the beginning of a period."""
    count = camera.sample_rate // camera.rate
    seconds = (number * count + np.arange(count)) / camera.sample_rate
    heard = np.sin(2 * np.pi * 1000 * seconds) * (seconds % float(PERIOD_SECONDS) < MARK_SECONDS) * 0.5
    frame = av.AudioFrame.from_ndarray(heard[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = camera.sample_rate, number * count
    frame.time_base = Fraction(1, camera.sample_rate)
    return frame


@dataclass(frozen=True)
class Piece:
    """A packet of the loop; times in seconds from the loop's beginning."""

    stream: int
    data: bytes
    pts: Fraction
    dts: Fraction
    is_key: bool


@functools.cache
def pieces(camera: Camera) -> tuple[Piece, ...]:
    """The packets of one period, in order."""
    with av.open(io.BytesIO(encoded(camera)), format="nut") as container:
        found = [
            Piece(p.stream.index, bytes(p), p.pts * p.time_base, p.dts * p.time_base, p.is_keyframe)
            for p in container.demux()
            if p.size
        ]
    middle = (p for p in found if PERIOD_SECONDS <= p.dts < 2 * PERIOD_SECONDS)
    return tuple(sorted(middle, key=lambda p: p.dts))


def ready(camera: Camera) -> Camera:
    """The camera, encoded now: a viewer who waits for that may give up."""
    pieces(camera)
    return camera


class MarkServer:
    """Serves ``camera`` at ``url`` until it is closed."""

    def __init__(self, camera: Camera) -> None:
        self.camera = ready(camera)
        self.viewed = threading.Event()  # someone has connected
        self._ended, self._cut, self._hung_up = (threading.Event() for _ in range(3))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="marks", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """As if the network were cut: nothing more is sent or answered."""
        self._cut.set()

    def mend(self) -> None:
        """The network is back."""
        self._cut.clear()

    def change(self, camera: Camera) -> None:
        """Another camera in the midst of the connection; its time goes on."""
        self.camera = ready(camera)

    def hang_up(self, camera: Camera) -> None:
        """Ends the connection; the next one is to another camera."""
        self.camera = ready(camera)
        self._hung_up.set()

    def close(self) -> None:
        """Ends it all."""
        self._ended.set()
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            if self._cut.is_set() or not select.select([self._listener], [], [], 0)[0]:
                self._ended.wait(LOOK_SECONDS)
                continue
            viewer, _ = self._listener.accept()
            viewer.settimeout(SEND_SECONDS)
            self._hung_up.clear()
            self.viewed.set()
            with viewer, contextlib.suppress(OSError, av.FFmpegError):
                self._send(viewer)

    def _send(self, viewer: socket.socket) -> None:
        """The camera in a loop, at its own pace, until the viewer leaves or is left."""
        began, passed = time.monotonic(), Fraction(0)
        while not (self._ended.is_set() or self._hung_up.is_set()):
            camera = self.camera
            options = {**PROMPT, "mpegts_start_pid": str(camera.first_pid)}
            with (
                av.open(io.BytesIO(encoded(camera)), format="nut") as loop,
                av.open(Pipe(viewer), "w", format="mpegts", options=options) as out,
            ):
                streams = [out.add_stream_from_template(stream) for stream in loop.streams]
                while camera is self.camera:
                    for piece in pieces(camera):
                        if not self._wait_until(began + float(passed + piece.dts - PERIOD_SECONDS)):
                            return
                        out.mux(packet_of(piece, passed, streams))
                    passed += PERIOD_SECONDS

    def _wait_until(self, moment: float) -> bool:
        """Until then, and while the network is cut; False: the viewer is to be left."""
        while not (self._ended.is_set() or self._hung_up.is_set()):
            left = moment - time.monotonic()
            if left <= 0 and not self._cut.is_set():
                return True
            self._ended.wait(min(max(left, 0.001), LOOK_SECONDS))
        return False


class Pipe:
    """A socket as a file that is written."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        """All of it."""
        self._connection.sendall(data)
        return len(data)


def packet_of(piece: Piece, later: Fraction, streams: list[av.stream.Stream]) -> av.Packet:
    """A packet for a muxer, so many seconds later."""
    packet = av.Packet(piece.data)
    packet.time_base = MPEG_TIME_BASE
    packet.pts, packet.dts = (round((t + later) / MPEG_TIME_BASE) for t in (piece.pts, piece.dts))
    packet.is_keyframe, packet.stream = piece.is_key, streams[piece.stream]
    return packet


def marks(path: Path) -> tuple[list[float], list[float]]:
    """When a recording flashes and when it sounds, in seconds."""
    flashes: list[float] = []
    beeps: list[float] = []
    bright, loud_until = True, -1.0  # what begins in a mark does not count: its beginning is missing
    with av.open(str(path)) as container:
        for packet in container.demux(*container.streams.video[:1], *container.streams.audio[:1]):
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    was, bright = bright, luma(frame) > BRIGHT_LUMA
                    if bright and not was:
                        flashes.append(frame.time)
                    continue
                samples = np.abs(frame.to_ndarray()[0])
                if samples.dtype.kind == "i":
                    samples = samples / np.iinfo(samples.dtype).max
                loud = np.flatnonzero(samples > LOUD)
                if loud.size:
                    seconds = frame.time + loud / frame.sample_rate
                    if seconds[0] > loud_until + SAME_MARK_SECONDS:
                        beeps.append(float(seconds[0]))
                    loud_until = float(seconds[-1])
    return flashes, beeps


def luma(frame: av.VideoFrame) -> float:
    """The mean brightness."""
    return float(frame.to_ndarray(format="gray").mean())


def steps(path: Path) -> list[tuple[float, float]]:
    """When a recording's picture has marks, and by how many seconds its sound is behind each."""
    flashes, beeps = marks(path)
    pairs = ((flash, min(beeps, key=lambda b: abs(b - flash))) for flash in flashes if beeps)
    return [(flash, beep - flash) for flash, beep in pairs if abs(beep - flash) < SAME_MARK_SECONDS]

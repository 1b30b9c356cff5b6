"""One live camera: from the browser through WebRTC, frame by frame, and back.

    browser ── camera ──► track ─► Mailbox ─► matte_frame, in a thread ──► ReturnTrack ──► browser
                                   (newest wins)                            (newest wins)

The offer comes through Gradio's own connection, so its login holds here too. No STUN or TURN server is
asked: browser and server must reach each other directly, as they do on one machine or network.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from torch import Tensor

from ..background import Background
from ..compositing import matte_frame
from ..errors import BanetStreamError
from ..frame import Frame, colour_of, nearest_format, planes_of, to_video_frame
from ..matting import Matter
from ..pipeline import Cancelled, Mailbox

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.5
CLOCK_RATE = 90_000  # of video over RTP (RFC 3551)
# Of a frame from the browser, which the page asks for 640x480; a client of one's own could send more.
LARGEST_PIXELS = 1280 * 720
# A connection that doesn't come about within this is given up.
CONNECT_SECONDS = 20.0


class Switch(Background):
    """A background that can be changed between two frames."""

    def __init__(self, background: Background) -> None:
        self._lock = threading.Lock()
        self._background = background

    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        """See Background."""
        with self._lock:
            return self._background.planes(frame, alpha)

    def change(self, background: Background) -> None:
        """From the next frame on; the old one is closed."""
        with self._lock:
            old, self._background = self._background, background
        old.close()

    def close(self) -> None:
        """See Background."""
        with self._lock:
            self._background.close()


class ReturnTrack(MediaStreamTrack):
    """What goes back: the newest finished frame, once."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._frames: asyncio.Queue[av.VideoFrame] = asyncio.Queue(1)
        self._began = time.perf_counter()

    def push(self, frame: av.VideoFrame) -> None:
        """On the event loop."""
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)

    async def recv(self) -> av.VideoFrame:
        """See MediaStreamTrack."""
        frame = await self._frames.get()
        # Stamped with its departure: by capture times the browser would see every wait here as jitter and
        # hold all frames back by the longest.
        frame.pts = round((time.perf_counter() - self._began) * CLOCK_RATE)
        frame.time_base = Fraction(1, CLOCK_RATE)
        return frame


@dataclass
class Arrived:
    """A frame from the camera, and when the server had it."""

    picture: av.VideoFrame
    seconds: float


@dataclass
class Figures:
    """What the page shows, over the last report's time."""

    frames: int = 0
    latency_seconds: list[float] = field(default_factory=list)

    def take(self, elapsed_seconds: float) -> dict[str, float]:
        """Frames per second and median latency; counting starts anew."""
        times = sorted(self.latency_seconds)
        told = {
            "fps": self.frames / elapsed_seconds,
            "server_ms": 1000 * times[len(times) // 2] if times else 0.0,
        }
        self.frames, self.latency_seconds = 0, []
        return told


class Camera:
    """One live connection; closed when the browser goes, or by ``close``."""

    def __init__(self, matter: Matter, background: Background, closed: Callable[[], None]) -> None:
        self.matter, self.switch, self.closed = matter, Switch(background), closed
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.dropped = 0  # frames that gave way to newer ones
        self.mailbox: Mailbox[Arrived] = Mailbox(is_picture=lambda _: True, dropped=self.note_dropped)
        self.back = ReturnTrack()
        self.figures = Figures()
        self.channel: RTCDataChannel | None = None
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.ended, self.gone = False, asyncio.Event()

    async def answer(self, sdp: str) -> str:
        """Takes the browser's offer; returns ours."""
        self.connection.on("track", self.on_track)
        self.connection.on("datachannel", self.on_channel)
        self.connection.on("connectionstatechange", self.on_state)
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        self.connection.addTrack(self.back)
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        self.start(self.give_up())
        return str(self.connection.localDescription.sdp)

    def start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def give_up(self) -> None:
        """Frees the place of a browser that never comes."""
        await asyncio.sleep(CONNECT_SECONDS)
        if self.connection.connectionState != "connected":
            await self.close()

    def on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video":
            self.start(self.receive(track))
            threading.Thread(target=self.work, name="banet-demo-camera", daemon=True).start()

    def on_channel(self, channel: RTCDataChannel) -> None:
        self.channel = channel
        channel.on("close", lambda: self.start(self.close()))
        self.start(self.report())

    async def on_state(self) -> None:
        if self.connection.connectionState in ("failed", "closed"):
            await self.close()

    async def receive(self, track: MediaStreamTrack) -> None:
        """Everything the browser sends, into the mailbox."""
        try:
            while True:
                picture = await track.recv()
                assert isinstance(picture, av.VideoFrame)
                if picture.width * picture.height > LARGEST_PIXELS:
                    await self.fail("The camera's picture is too large for this page.")
                    return
                self.mailbox.put(Arrived(picture, time.perf_counter()))
        except (MediaStreamError, Cancelled):
            await self.close()

    def note_dropped(self, _: Arrived) -> None:
        self.dropped += 1

    def work(self) -> None:
        """The thread that mattes; a frame whose matte can't be had is never sent."""
        message, stream = "", self.matter.stream()
        try:
            for arrived in self.mailbox:
                frame = frame_of(arrived.picture)
                self.loop.call_soon_threadsafe(
                    self.back.push, to_video_frame(matte_frame(frame, stream, self.switch))
                )
                self.figures.frames += 1
                self.figures.latency_seconds.append(time.perf_counter() - arrived.seconds)
        except Cancelled:
            pass
        except BanetStreamError as error:
            message = str(error)
        except Exception:  # our own bug: the visitor sees no raw picture, and the log says why
            log.exception("webcam")
            message = "Something went wrong here; start the camera again."
        finally:
            self.switch.close()
            if not self.ended and not self.loop.is_closed():
                asyncio.run_coroutine_threadsafe(self.fail(message), self.loop)

    async def report(self) -> None:
        """Tells the page how it goes, until the connection ends."""
        began = time.perf_counter()
        while not self.ended:
            await asyncio.sleep(REPORT_SECONDS)
            now = time.perf_counter()
            told: dict[str, Any] = self.figures.take(now - began)
            began = now
            self.tell({**told, "dropped": self.dropped})

    def tell(self, what: dict[str, Any]) -> None:
        if self.channel is not None and self.channel.readyState == "open":
            self.channel.send(json.dumps(what))

    async def fail(self, message: str) -> None:
        """Says why, and closes."""
        self.tell({"error": message})
        await asyncio.sleep(REPORT_SECONDS)  # so that it arrives
        await self.close()

    async def close(self) -> None:
        """Ends everything; twice is harmless, and waits for the first."""
        if self.ended:
            await self.gone.wait()
            return
        self.ended = True
        self.mailbox.cancel()
        self.closed()
        await self.connection.close()
        for task in self.tasks - {asyncio.current_task()}:
            task.cancel()
        self.gone.set()


def frame_of(picture: av.VideoFrame) -> Frame:
    """What the browser sent, as the pipeline takes it."""
    assert picture.pts is not None
    assert picture.time_base is not None
    layout = nearest_format(picture.format.name)
    return Frame(planes_of(picture, layout), layout, colour_of(picture), picture.pts, picture.time_base)

"""One live camera over real WebRTC on this machine, with aiortc at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.mediastreams import MediaStreamError
from conftest import portrait
from torch import Tensor

from banet_stream import MatteError, Matter
from banet_stream.background import Plain
from banet_stream.demo.camera import Camera

GREEN = (0, 177, 64)
RED_ROOM = (200, 30, 30)
PATIENCE_SECONDS = 60


class Person(VideoStreamTrack):
    """Somebody before a red wall, 30 times a second."""

    def __init__(self, width: int = 320, height: int = 240) -> None:
        super().__init__()
        pixels = np.full((height, width, 3), RED_ROOM, np.uint8)
        person = np.asarray(portrait(width // 2, height))
        pixels[:, width // 4 : width // 4 + person.shape[1]] = person
        self.pixels = pixels

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(self.pixels, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Viewer:
    """The browser's side."""

    def __init__(self, source: MediaStreamTrack) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTrack(source)
        self.channel = self.connection.createDataChannel("figures")
        self.told: list[dict[str, Any]] = []
        self.channel.on("message", lambda text: self.told.append(json.loads(text)))
        self.track: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self.connection.on("track", self.track.set_result)

    async def join(self, camera: Camera) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        answer = await camera.answer(self.connection.localDescription.sdp)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def corners(self, count: int) -> list[np.ndarray]:
        """Mean colour of the upper right corner of the next frames."""
        track = await self.track
        frames = [await track.recv() for _ in range(count)]
        return [f.to_ndarray(format="rgb24")[4:20, -20:-4].reshape(-1, 3).mean(0) for f in frames]

    async def hear(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(map(wanted, self.told)):
            assert time.monotonic() < deadline, self.told[-3:]
            await asyncio.sleep(0.1)
        return next(filter(wanted, self.told))


def live(matter: Matter, scene: Callable[[Camera, Viewer], Any], source: Person | None = None) -> list[bool]:
    """Runs ``scene`` on a connection; returns what ``closed`` was called with."""
    ended: list[bool] = []

    async def run() -> None:
        camera = Camera(matter, Plain(GREEN), lambda: ended.append(True))
        viewer = Viewer(source or Person())
        try:
            await viewer.join(camera)
            await asyncio.wait_for(scene(camera, viewer), PATIENCE_SECONDS)
        finally:
            await viewer.connection.close()
            await camera.close()
            await asyncio.sleep(0.3)  # for the sockets' last callbacks

    asyncio.run(run())
    return ended


class Engine:
    """The real one, with something done before each frame."""

    def __init__(self, engine: Any, before: Callable[[int], None]) -> None:
        self.engine, self.before, self.frames = engine, before, 0
        self.device = engine.device

    def __call__(self, image: Tensor) -> Tensor:
        self.frames += 1
        self.before(self.frames)
        return self.engine(image)


def with_engine(matter: Matter, before: Callable[[int], None]) -> Matter:
    other = copy.copy(matter)
    other.engine = Engine(matter.engine, before)
    return other


def far_from(colour: tuple[int, int, int], seen: np.ndarray) -> float:
    return float(abs(seen - colour).max())


def test_frames_come_back_and_the_background_changes(matter: Matter) -> None:
    async def scene(camera: Camera, viewer: Viewer) -> None:
        for corner in await viewer.corners(8):
            assert far_from(GREEN, corner) < 30
        camera.switch.change(Plain((0, 0, 255)))
        last = (await viewer.corners(25))[-1]
        assert far_from((0, 0, 255), last) < 30
        told = await viewer.hear(lambda t: t.get("fps", 0) > 0)
        assert told["server_ms"] > 0

    assert live(matter.at_size(64), scene) == [True]


def test_a_slow_network_drops_frames_and_keeps_none(matter: Matter) -> None:
    async def scene(camera: Camera, viewer: Viewer) -> None:
        await viewer.corners(6)
        assert camera.dropped >= 5
        assert camera.back._frames.qsize() <= 1
        told = await viewer.hear(lambda t: t.get("fps", 0) > 0)
        # Never more behind than the frame under way and the one that waits.
        assert told["server_ms"] < 1500

    live(with_engine(matter.at_size(64), lambda _: time.sleep(0.3)), scene)


def test_no_raw_picture_when_the_matte_fails(matter: Matter) -> None:
    def fail(frame: int) -> None:
        if frame > 20:
            raise MatteError("the network failed on cpu (out of memory)")

    async def scene(camera: Camera, viewer: Viewer) -> None:
        seen: list[np.ndarray] = []
        with contextlib.suppress(MediaStreamError):  # the end
            while True:
                seen += await viewer.corners(1)
        assert 1 <= len(seen) <= 20
        assert all(far_from(RED_ROOM, corner) > 60 for corner in seen)  # not the room
        told = await viewer.hear(lambda t: "error" in t)
        assert told["error"] == "the network failed on cpu (out of memory)"

    assert live(with_engine(matter.at_size(64), fail), scene) == [True]


def test_a_picture_too_large_is_refused(matter: Matter) -> None:
    async def scene(camera: Camera, viewer: Viewer) -> None:
        told = await viewer.hear(lambda t: "error" in t)
        assert "too large" in told["error"]

    live(matter.at_size(64), scene, Person(1344, 768))


def test_what_is_no_offer_is_refused(matter: Matter) -> None:
    async def run() -> None:
        camera = Camera(matter, Plain(GREEN), lambda: None)
        with pytest.raises(Exception, match=r".*"):
            await camera.answer("v=0 this is nothing")
        await camera.close()
        await camera.close()
        assert camera.ended

    asyncio.run(run())

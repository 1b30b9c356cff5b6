"""RTSP with a real server, and every way it can go away."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import read
from live_runs import CAMERA, Running, colours, stub_matter
from live_servers import Proxy, RtspServer, needs_rtsp

from banet_stream import Matter
from banet_stream.backoff import Retry
from banet_stream.contract import LAST, SINK_AWAY, SINK_SLOW, SLATE
from banet_stream.errors import InputError, OutputError
from banet_stream.live import LiveOptions, process_live
from banet_stream.live_source import CaptureOptions
from banet_stream.publish import PublishOptions
from banet_stream.sinks import SinkOptions

pytestmark = needs_rtsp

RETRY = Retry(0.2, 0.5)
CAPTURE = CaptureOptions(timeout_seconds=4.0, retry=RETRY)
OPTIONS = LiveOptions(
    capture=CAPTURE,
    publish=PublishOptions(SinkOptions(timeout_seconds=3.0), RETRY, deadline_seconds=20, gap_seconds=0.5),
    slate="red",
)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    made = RtspServer()
    made.start()
    yield made
    made.kill()


@pytest.fixture
def proxy(server: RtspServer) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.close()


# --- in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_in_with_sound(
    server: RtspServer, running: Callable[..., Running], tmp_path: Path, transport: str
) -> None:
    output = tmp_path / "o.mkv"
    options = LiveOptions(capture=CAPTURE, rtsp_transport=transport)
    run = running(server.url("camera"), output, options)
    run.more_frames(30)
    summary = run.end()
    after = read(output)
    assert abs(len(after.frames) - summary.contract.whole.shown) <= 3
    assert set(colours(read(output).frames)) == {"green"}
    assert len(after.audio_packets) > 20
    # Sound and picture of one moment lie together: both begin within a few frames.
    assert abs(after.audio_seconds[-1] - after.pts_seconds[-1]) < 1.0


def test_the_password_opens_and_is_not_shown(
    running: Callable[..., Running],
    stub: Callable[..., Matter],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RtspServer("someone", "hunter2")
    server.start()
    caplog.set_level(logging.DEBUG)
    try:
        run = running(server.url("silent"), tmp_path / "o.mkv")
        run.more_frames()
        server.kill()
        run.wait(lambda _: "trying again" in caplog.text, "the next attempt")
        run.wait(lambda c: c.whole.fillers[SLATE] > 0, "the slate")
        run.end()
        server.start()
        with pytest.raises(InputError, match="401") as caught:
            process_live(
                server.url("silent").replace("hunter2", "hunter3"),
                str(tmp_path / "p.mkv"),
                matter=stub(),
                options=OPTIONS,
            )
        with pytest.raises(OutputError, match="401"):
            process_live(
                CAMERA, server.url("record").replace("hunter2", "hunter3"), matter=stub(), options=OPTIONS
            )
    finally:
        server.kill()
    assert "hunter" not in caplog.text + str(caught.value)


@pytest.mark.parametrize("gap", ["slate", "last"])
def test_the_camera_is_killed_and_comes_back(
    server: RtspServer, running: Callable[..., Running], tmp_path: Path, gap: str
) -> None:
    output = tmp_path / "o.mkv"
    publish = PublishOptions(SinkOptions(), RETRY, deadline_seconds=20, gap=gap, gap_seconds=0.5)
    run = running(server.url("camera"), output, LiveOptions(capture=CAPTURE, publish=publish, slate="red"))
    run.more_frames(20)
    server.kill()
    filler = SLATE if gap == "slate" else LAST
    run.wait(lambda c: c.whole.fillers[filler] >= 5, "fillers")
    server.start()
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(20)
    summary = run.end()
    after = read(output)
    seen = colours(after.frames)
    assert seen[0] == seen[-1] == "green"
    assert ("red" in seen) == (gap == "slate")
    assert "other" not in seen
    assert summary.contract.whole.reconnects == {"source": 1}
    # After the gap sound and picture are in step again, as far as their first pieces tell.
    steps = np.diff(after.audio_seconds)
    back = after.audio_seconds[int(steps.argmax()) + 1]
    assert steps.max() > 0.5
    assert min(abs(back - t) for t in after.pts_seconds) < 0.3
    assert abs(after.audio_seconds[-1] - after.pts_seconds[-1]) < 1.0
    assert all(b > a for a, b in zip(after.pts_seconds, after.pts_seconds[1:], strict=False))


@pytest.mark.parametrize(
    ("path", "size", "codec", "fps", "sound"),
    [
        ("silent", "64x96", "h264", 25, "aac"),
        ("silent", "96x64", "h265", 15, "aac"),
        ("camera", "96x64", "h265", 15, "aac"),
        ("camera", "96x64", "h265", 15, "opus"),
    ],
)
def test_the_camera_comes_back_as_another(
    server: RtspServer,
    running: Callable[..., Running],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    path: str,
    size: str,
    codec: str,
    fps: int,
    sound: str,
) -> None:
    output = tmp_path / "o.mkv"
    run = running(server.url(path), output)
    run.more_frames(20)
    server.kill()
    server.start(size, codec=codec, fps=fps, sound=sound)
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(40)
    run.end()
    after = read(output)
    assert {(f.width, f.height) for f in after.frames} == {(160, 120)}
    assert set(colours(after.frames)) <= {"green", "red"}
    assert colours(after.frames)[-1] == "green"
    if path == "camera":  # to the end, or where the file can't take it, to the loss
        in_step = abs(after.audio_seconds[-1] - after.pts_seconds[-1]) < 1.0
        assert in_step == (sound == "aac")
        assert ("is left out" in caplog.text) == (sound == "opus")


@pytest.mark.parametrize("fault", ["stall", "cut", "damage"])
def test_a_bad_network(
    server: RtspServer, proxy: Proxy, running: Callable[..., Running], tmp_path: Path, fault: str
) -> None:
    output = tmp_path / "o.mkv"
    run = running(server.url("silent", proxy.port), output)
    run.more_frames()
    if fault == "cut":
        proxy.cut()
    else:
        trouble = proxy.stalled if fault == "stall" else proxy.damaging
        trouble.set()
        long_enough = 50 if fault == "stall" else 2  # five a second: well past the timeout
        run.wait(lambda c: c.whole.fillers[SLATE] >= long_enough, "the slate")
        trouble.clear()
    if fault != "damage":  # over which the decoder may get by itself
        run.wait(lambda c: c.whole.reconnects["source"] >= 1, "the source's return")
    run.more_frames(10)
    run.end()
    assert set(colours(read(output).frames)) <= {"green", "red"}


def test_attempts_run_out(server: RtspServer, running: Callable[..., Running], tmp_path: Path) -> None:
    options = LiveOptions(capture=CaptureOptions(4.0, Retry(0.1, 0.1, attempts=2)))
    run = running(server.url("silent"), tmp_path / "o.mkv", options)
    run.more_frames()
    server.kill()
    run.thread.join(30)
    assert isinstance(run.error, InputError)
    assert "given up after 2 attempts" in str(run.error)
    assert len(read(tmp_path / "o.mkv").frames) >= 5  # the file was closed in order


def test_a_server_that_never_answers(stub: Callable[..., Matter], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(InputError, match="no answer within 1 s"):
            process_live(
                f"rtsp://127.0.0.1:{port}/x",
                str(tmp_path / "o.mkv"),
                matter=stub(),
                options=LiveOptions(capture=CaptureOptions(timeout_seconds=1)),
            )
        for scheme in ("rtsp", "rtmp"):
            with pytest.raises(OutputError, match="did not answer within 1 s"):
                process_live(
                    CAMERA,
                    f"{scheme}://127.0.0.1:{port}/a/b",
                    matter=stub(),
                    options=LiveOptions(publish=PublishOptions(SinkOptions(timeout_seconds=1))),
                )
        assert time.monotonic() - began < 60


def test_a_read_that_never_returns_is_left_behind(
    server: RtspServer, running: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should FFmpeg's own limits fail, as they do in some drivers, the watchdog does not wait for it."""
    from banet_stream import capture

    opened = capture.open_live
    calls: list[int] = []

    def hangs_once(source: capture.LiveSource) -> av.container.InputContainer:
        calls.append(1)
        if len(calls) == 2:
            time.sleep(30)
        return opened(source)

    monkeypatch.setattr(capture, "open_live", hangs_once)
    options = LiveOptions(capture=CaptureOptions(3.0, RETRY), publish=OPTIONS.publish, slate="red")
    run = running(server.url("silent"), tmp_path / "o.mkv", options)
    run.more_frames()
    server.kill()
    server.start()
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    assert len(calls) >= 3
    run.more_frames()
    run.end()


# --- out ---------------------------------------------------------------------------------------


def first_frames(url: str, count: int = 10) -> list[av.VideoFrame]:
    deadline = time.monotonic() + 30
    while True:
        try:
            with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(10, 10)) as container:
                frames = []
                for frame in container.decode(video=0):
                    frames.append(frame)
                    if len(frames) == count:
                        return frames
        except (av.FFmpegError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_out_and_what_viewers_see(server: RtspServer, running: Callable[..., Running]) -> None:
    run = running(CAMERA, server.url("record"))
    run.more_frames()
    shown = first_frames(server.url("relayed"))[-1].to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
    assert abs(shown - (0, 128, 0)).max() < 20
    summary = run.end()
    assert not summary.broken_off
    assert not summary.contract.whole.reconnects["sink"]


def test_from_rtsp_to_rtsp_with_sound(server: RtspServer, running: Callable[..., Running]) -> None:
    other = RtspServer()
    other.start()
    try:
        run = running(server.url("camera"), other.url("record-sound"))
        run.more_frames(50)
        summary = run.end()
        assert not summary.contract.whole.reconnects
    finally:
        other.kill()


def test_the_server_published_to_is_killed_and_comes_back(
    server: RtspServer, running: Callable[..., Running]
) -> None:
    run = running(CAMERA, server.url("record"))
    run.more_frames(20)
    server.kill()
    run.wait(lambda c: c.whole.dropped[SINK_AWAY] >= 3, "frames without a sink")
    server.start()
    run.wait(lambda c: c.whole.reconnects["sink"] == 1, "the sink's return")
    run.more_frames(20)
    summary = run.end()
    assert summary.contract.whole.reconnects == {"sink": 1}


def test_a_sink_that_stalls_is_left_and_found_again(
    server: RtspServer, proxy: Proxy, running: Callable[..., Running]
) -> None:
    """Nothing may hang, and latency must not grow: what can't go out is dropped."""
    noise = "lavfi:nullsrc=size=640x480:rate=25,geq=lum='random(1)*255':cb=128:cr=128,format=yuv420p"
    sink = SinkOptions(bit_rate=8_000_000, timeout_seconds=2.0)
    publish = PublishOptions(sink, RETRY, deadline_seconds=20)
    options = LiveOptions(capture=CAPTURE, publish=publish)
    everything = stub_matter(lambda _: 1.0)  # so that noise fills what can be buffered
    run = running(noise, server.url("record", proxy.port), options, everything)
    run.more_frames(4)
    proxy.stalled.set()
    run.wait(lambda c: c.whole.dropped[SINK_SLOW] + c.whole.dropped[SINK_AWAY] >= 5, "drops")
    time.sleep(1)
    proxy.cut()
    proxy.stalled.clear()
    run.wait(lambda c: c.whole.reconnects["sink"] >= 1, "the sink's return")
    run.more_frames(4)
    run.end()


def test_the_command_from_rtsp_to_rtsp(server: RtspServer) -> None:
    words = [server.url("silent"), "-o", server.url("record"), "--bg", "green", "--duration", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "banet_stream", *words, "--device", "cpu", "--size", "64"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "latency p99 ms" in done.stdout
    assert "Traceback" not in done.stderr

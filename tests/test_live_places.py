"""HLS, RTMP, HTTP, webcams, virtual cameras, the preview; saving power."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import read
from live_servers import Running, free_port, web_server
from torch import Tensor

from banet_stream import Matter, kinds
from banet_stream.backoff import Retry
from banet_stream.capture import CaptureOptions, LiveFrame, webcam_trouble
from banet_stream.contract import SINK_AWAY
from banet_stream.errors import InputError, OutputError
from banet_stream.kinds import Kind, Place
from banet_stream.live import LiveOptions, process_live
from banet_stream.publish import PublishOptions
from banet_stream.sinks import SinkOptions

Clip = Callable[..., Path]
CAMERA = "lavfi:testsrc2=size=160x120:rate=25"
RETRY = Retry(0.2, 0.5)
OPTIONS = LiveOptions(
    capture=CaptureOptions(5.0, RETRY),
    publish=PublishOptions(SinkOptions(timeout_seconds=5.0), RETRY, deadline_seconds=20),
)


class Engine:
    """In place of the network: nobody is there."""

    name, precision, device = "stub", "float32", torch.device("cpu")

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Tensor) -> Tensor:
        self.calls += 1
        return torch.zeros(1, 1, *image.shape[2:])


@pytest.fixture
def matter() -> Matter:
    made = Matter(device="cpu", precision="float32", size=64)
    made.engine = Engine()  # type: ignore[assignment]
    return made


@pytest.fixture
def running(matter: Matter) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(
        source: object, output: object = None, options: LiveOptions = OPTIONS, **more: object
    ) -> Running:
        place = None if output is None else str(output)
        started.append(Running(str(source), place, matter, options, **more))
        return started[-1]

    yield start
    for run in started:
        run.stop.set()
        run.thread.join(20)


def is_green(frame: av.VideoFrame) -> bool:
    red, green, _ = frame.to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
    return bool(green > 90 > red)


# --- HLS and HTTP ------------------------------------------------------------------------------


def test_hls_out_and_in_again(running: Callable[..., Running], tmp_path: Path) -> None:
    folder = tmp_path / "tv"
    out = running(CAMERA, f"{folder}/")
    playlist = folder / "index.m3u8"
    deadline = time.monotonic() + 40
    while (
        not (playlist.exists() and playlist.read_text().count("#EXTINF") >= 2) and time.monotonic() < deadline
    ):
        assert out.thread.is_alive(), out.error
        time.sleep(0.1)
    assert "#EXT-X-ENDLIST" not in playlist.read_text()
    back = tmp_path / "back.mkv"
    with web_server(folder) as address:
        viewer = running(f"{address}/index.m3u8", back)
        viewer.more_frames(30)
        viewer.end()
    out.end()
    assert all(is_green(f) for f in read(back).frames)
    assert "#EXT-X-ENDLIST" in playlist.read_text()  # in order


def test_hls_keeps_a_few_segments_only(running: Callable[..., Running], tmp_path: Path) -> None:
    run = running(CAMERA, tmp_path / "live.m3u8")
    run.more_frames(60)
    run.end()
    segments = sorted(tmp_path.glob("live-*.ts"))
    assert 1 <= len(segments) <= kinds.HLS_SEGMENTS + 2
    assert all(is_green(f) for f in read(segments[0]).frames)  # each begins with a key frame


def test_http_recording_at_its_own_pace(running: Callable[..., Running], clip: Clip, tmp_path: Path) -> None:
    source = clip(frames=30, index_first=True)
    with web_server(source.parent) as address:
        run = running(f"{address}/{source.name}", tmp_path / "o.mkv")
        run.thread.join(60)
    assert run.error is None
    assert run.summary is not None
    assert run.summary.contract.whole.captured == 30
    assert all(is_green(f) for f in read(tmp_path / "o.mkv").frames)


def test_http_that_is_not_there(matter: Matter, tmp_path: Path) -> None:
    with web_server(tmp_path) as address, pytest.raises(InputError, match="404"):
        process_live(f"{address}/none.m3u8", None, matter=matter)


# --- RTMP --------------------------------------------------------------------------------------


class RtmpReader(threading.Thread):
    """Waits for one publisher, as a server would, and reads what it sends."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.frames, self.sounds = url, 0, 0
        self.green = True
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        with av.open(self.url, format="flv", options={"listen": "1"}, timeout=(60, 10)) as container:
            try:
                for packet in container.demux():
                    if packet.stream.type == "audio":
                        self.sounds += 1
                        continue
                    for frame in packet.decode():
                        self.frames += 1
                        self.green &= is_green(frame)
                    if self.enough.is_set():
                        return
            except (av.FFmpegError, OSError):
                return


def test_rtmp_out_with_sound_over_a_loss(running: Callable[..., Running], clip: Clip) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/app/key"
    first = RtmpReader(url)
    time.sleep(1)
    run = running(clip(frames=1500, audio="aac"), url)
    run.wait(lambda _: first.frames >= 10, "frames at the server")
    first.enough.set()
    first.join(20)
    assert first.green
    assert first.sounds > 5
    run.wait(lambda c: c.whole.dropped[SINK_AWAY] >= 1, "the loss")
    second = RtmpReader(url)
    run.wait(lambda _: second.frames >= 10, "frames at the second server")
    assert run.contract is not None
    assert run.contract.whole.reconnects["sink"] >= 1
    assert second.green
    run.end()
    second.enough.set()
    second.join(20)


@pytest.mark.skipif(
    not shutil.which("ffmpeg"), reason="no ffmpeg program to serve RTMP; apt-get install ffmpeg"
)
def test_rtmp_in(running: Callable[..., Running], clip: Clip, tmp_path: Path) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/app/key"
    line = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip(frames=50)), "-c", "copy"]
    server = subprocess.Popen([*line, "-f", "flv", "-listen", "1", url], stdin=subprocess.DEVNULL)
    try:
        time.sleep(1)
        run = running(url, tmp_path / "o.mkv")
        run.more_frames(20)
        run.end()
    finally:
        server.kill()
        server.wait()
    assert all(is_green(f) for f in read(tmp_path / "o.mkv").frames)


# --- webcams -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EBUSY, "another program uses the webcam"),
        (errno.EACCES, "group 'video'"),
        (errno.ENODEV, "was unplugged"),
        (errno.EINVAL, "does not offer video_size 640x480"),
        (errno.ENOTTY, "is no webcam"),
        (errno.EIO, "can't be read"),
    ],
)
def test_a_webcams_trouble_in_words(number: int, message: str) -> None:
    place = Place(Kind.WEBCAM, "/dev/video0", "v4l2", {"video_size": "640x480"})
    assert message in webcam_trouble(OSError(number, os.strerror(number)), place)


def test_a_device_that_is_no_webcam(matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a machine without a webcam goes: FFmpeg's v4l2 opens the device and says what it is not."""
    monkeypatch.setattr(kinds, "DEVICES", tmp_path)
    (tmp_path / "video0").symlink_to("/dev/null")
    with pytest.raises(InputError, match="is no webcam"):
        process_live("0", None, matter=matter)


# --- virtual camera ----------------------------------------------------------------------------


def test_without_pyvirtualcam(matter: Matter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(OutputError, match=r"pip install 'banet-stream\[camera\]'"):
        process_live(CAMERA, "virtual-camera", matter=matter)


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="this machine has video devices")
def test_no_virtual_camera_on_this_machine(matter: Matter) -> None:
    pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed")
    with pytest.raises(OutputError, match="no virtual camera there"):
        process_live(CAMERA, "/dev/video10", matter=matter)


def test_what_a_virtual_camera_is_given(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's own code, before a stand-in for the driver, which can't be loaded here."""
    sent: list[np.ndarray] = []
    made: list[tuple[object, ...]] = []

    class Camera:
        def __init__(self, width: int, height: int, fps: float, *, fmt: str, device: str | None) -> None:
            made.append((width, height, fps, fmt, device))

        def send(self, samples: np.ndarray) -> None:
            sent.append(samples)

        def close(self) -> None:
            made.append(("closed",))

    stand_in = types.SimpleNamespace(Camera=Camera, PixelFormat=types.SimpleNamespace(I420="I420"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", stand_in)
    run = running(CAMERA, "/dev/video10")
    run.more_frames(5)
    run.end()
    assert made == [(160, 120, 25.0, "I420", "/dev/video10"), ("closed",)]
    frame = av.VideoFrame.from_ndarray(sent[-1].reshape(180, 160), format="yuv420p")
    assert is_green(frame)


# --- preview -----------------------------------------------------------------------------------


def test_no_screen_for_a_preview() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-m", "banet_stream", CAMERA, "--preview", "--device", "cpu", "--size", "64"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert "--stats prints figures" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not shutil.which("xvfb-run"), reason="no screen to draw on; apt-get install xvfb xauth")
def test_a_preview_on_a_screen(tmp_path: Path) -> None:
    """A real window on a virtual screen, whose pixels are read back."""
    pytest.importorskip("tkinter", reason="this Python has no tkinter; apt-get install python3-tk")
    script = tmp_path / "look.py"
    script.write_text(
        "import threading, torch\n"
        "from fractions import Fraction\n"
        "from banet_stream.capture import LiveFrame\n"
        "from banet_stream.frame import PIXEL_FORMATS, Colour\n"
        "from banet_stream.preview import open_preview\n"
        "stop = threading.Event()\n"
        "window = open_preview(stop)\n"
        "flat = lambda v, *s: torch.full(s, v, dtype=torch.uint8)\n"
        "planes = [flat(81, 1200, 1600), flat(90, 600, 800), flat(240, 600, 800)]\n"
        "window.watch(LiveFrame(planes, PIXEL_FORMATS['yuv420p'], Colour('bt601', False, 6, 6, 6), 0,"
        " Fraction(1, 25)))\n"
        "for _ in range(5): window.draw()\n"
        "print(window.drawn, window._picture.width(), window._picture.get(300, 300))\n"
        "window.close()\n"
    )
    done = subprocess.run(
        ["xvfb-run", "-a", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drawn, width, *colour = re.findall(r"\d+", done.stdout)
    assert (drawn, width) == ("1", "800")
    assert np.abs(np.array(colour, int) - (254, 0, 0)).max() <= 2


@pytest.mark.skipif(not shutil.which("xvfb-run"), reason="no screen to draw on; apt-get install xvfb xauth")
def test_the_command_with_a_preview() -> None:
    pytest.importorskip("tkinter", reason="this Python has no tkinter; apt-get install python3-tk")
    words = [CAMERA, "--preview", "--duration", "2", "--device", "cpu", "--size", "64"]
    done = subprocess.run(
        ["xvfb-run", "-a", sys.executable, "-m", "banet_stream", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "latency p99 ms" in done.stdout


# --- saving power ------------------------------------------------------------------------------


def frame_at(number: int, picture: np.ndarray) -> LiveFrame:
    video = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
    from banet_stream.frame import PIXEL_FORMATS, colour_of, planes_of

    layout = PIXEL_FORMATS["yuv420p"]
    return LiveFrame(planes_of(video, layout), layout, colour_of(video), number, Fraction(1, 25))


def test_the_network_rests_while_nothing_moves(matter: Matter) -> None:
    from banet_stream.matting import MOST_RESTS, MatteStream

    stream = MatteStream(matter, save_power=True)
    generator = np.random.default_rng(0)
    room = generator.integers(40, 200, (12, 16, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    for number in range(20):  # a still room with a webcam's noise
        noisy = np.clip(room + generator.normal(0, 3, room.shape), 0, 255).astype(np.uint8)
        stream.network_alpha(frame_at(number, noisy))
    assert matter.engine.calls == 1  # type: ignore[attr-defined]
    moved = room.copy()
    moved[100:140, 100:140] = 255 - moved[100:140, 100:140]  # a hand
    stream.network_alpha(frame_at(20, moved))
    assert matter.engine.calls == 2  # type: ignore[attr-defined]
    stream.reset()
    stream.network_alpha(frame_at(21, moved))
    assert matter.engine.calls == 3  # type: ignore[attr-defined]
    for number in range(MOST_RESTS + 1):  # not for ever
        stream.network_alpha(frame_at(22 + number, moved))
    assert matter.engine.calls == 4  # type: ignore[attr-defined]
    assert stream.frames - stream.rested == 4


def test_slow_motion_is_not_missed(matter: Matter) -> None:
    """Each step is below the gate, their sum is not."""
    from banet_stream.matting import MatteStream

    stream = MatteStream(matter, save_power=True)
    for number in range(24):
        stream.network_alpha(frame_at(number, np.full((240, 320, 3), 100 + number, np.uint8)))
    assert 3 <= matter.engine.calls <= 8  # type: ignore[attr-defined]


def test_without_the_option_every_frame_is_seen(matter: Matter) -> None:
    stream = matter.stream()
    for number in range(5):
        stream.network_alpha(frame_at(number, np.full((64, 64, 3), 100, np.uint8)))
    assert matter.engine.calls == 5  # type: ignore[attr-defined]

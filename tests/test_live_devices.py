"""Webcams, virtual cameras and the preview's window, as far as a machine without devices goes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from live_runs import CAMERA, Running, is_green

from banet_stream import Matter, kinds
from banet_stream.capture import webcam_trouble
from banet_stream.errors import InputError, OutputError
from banet_stream.kinds import Kind, Place
from banet_stream.live import process_live

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


def test_a_device_that_is_no_webcam(
    stub: Callable[..., Matter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a machine without a webcam goes: FFmpeg's v4l2 opens the device and says what it is not."""
    monkeypatch.setattr(kinds, "DEVICES", tmp_path)
    (tmp_path / "video0").symlink_to("/dev/null")
    with pytest.raises(InputError, match="is no webcam"):
        process_live("0", None, matter=stub())


# --- virtual camera ----------------------------------------------------------------------------


def test_without_pyvirtualcam(stub: Callable[..., Matter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(OutputError, match=r"pip install 'banet-stream\[camera\]'"):
        process_live(CAMERA, "virtual-camera", matter=stub())


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="this machine has video devices")
def test_no_virtual_camera_on_this_machine(stub: Callable[..., Matter]) -> None:
    pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed")
    with pytest.raises(OutputError, match="no virtual camera there"):
        process_live(CAMERA, "/dev/video10", matter=stub())


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
        "from banet_stream.live_source import LiveFrame\n"
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

"""The demo as a process, and a browser whose camera is a file: for screenshots, benchmarks and tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from banet_stream.demo import samples

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "banet_stream", "demo")
START_SECONDS, END_SECONDS = 150.0, 30.0
# Nothing but the page: no sandbox (root in a container has none), no accelerator, no calls home.
BROWSER_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@dataclass
class Running:
    """A demo that answers at ``address``; what it prints is in ``log``."""

    address: str
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def start_demo(folder: Path, *options: str, command: Sequence[str] = COMMAND) -> Iterator[Running]:
    """A demo on a free port, with its temporary files in ``folder``; stopped as by Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "server.log"
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    words = [*command, "--no-browser", "--port", str(port), *options]
    with log.open("w") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment, text=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while "Ctrl-C ends it" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the demo did not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield Running(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def chromium() -> str | None:
    """Debian's browser, where it is installed."""
    return shutil.which("chromium")


def write_camera(path: Path, *, width: int = 640, height: int = 480) -> None:
    """What the camera sees, as Motion JPEG that Chromium repeats: the astronaut, swaying."""
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=samples.RATE, options={"q": "3"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for index in range(samples.RATE * samples.SECONDS):
            picture = av.VideoFrame.from_ndarray(samples.portrait(index / samples.RATE), format="rgb24")
            container.mux(stream.encode(picture.reformat(width=width, height=height, format="yuvj420p")))
        container.mux(stream.encode(None))


@contextmanager
def browser(camera: Path) -> Iterator[Any]:
    """Playwright's browser."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (of the extra dev)

    path = chromium()
    if path is None:
        raise RuntimeError("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=path, args=[*BROWSER_OPTIONS, f"--use-file-for-fake-video-capture={camera}"]
        )
        yield opened
        opened.close()

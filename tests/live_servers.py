"""Real servers and bad networks for the tests of live runs."""

from __future__ import annotations

import contextlib
import errno
import functools
import http.server
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# GStreamer's bindings are Debian's, for Debian's own Python.
SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = (
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-plugins-ugly gstreamer1.0-libav gir1.2-gst-rtsp-server-1.0 python3-gi"
)


@functools.cache
def rtsp_is_missing() -> bool:
    """FAIL_WITHOUT_RTSP=1 makes this a failure, so that CI can't pass by skipping."""
    probe = (
        "import gi; gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer\n"
        "Gst.init(None); names = ('x264enc', 'x265enc', 'avenc_aac', 'opusenc', 'avdec_h264', "
        "'intervideosrc', 'rtph264pay', 'rtph265pay'); "
        "assert all(Gst.ElementFactory.find(n) for n in names)"
    )
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False).returncode != 0
    except OSError:
        return True


needs_rtsp = pytest.mark.skipif(
    not os.environ.get("FAIL_WITHOUT_RTSP") and rtsp_is_missing(),
    reason=f"no GStreamer RTSP server here; apt-get install {PACKAGES}",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_listener(port: int) -> None:
    """Until a server listens there. Connecting would take the one place of a server that takes one client;
    what is only bound can be bound once more (SO_REUSEADDR), what listens can't."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens at port {port}")


class RtspServer:
    """tests/rtsp_server.py in a process of its own; may be killed and started again at the same port."""

    def __init__(self, *credentials: str) -> None:
        self.port, self.credentials = free_port(), credentials
        self.process: subprocess.Popen[str] | None = None

    def start(self, size: str = "160x120", *, codec: str = "h264", fps: int = 25, sound: str = "aac") -> None:
        script = str(Path(__file__).with_name("rtsp_server.py"))
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, script, str(self.port), size, codec, str(fps), sound, *self.credentials],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def url(self, path: str, port: int | None = None) -> str:
        who = ":".join(self.credentials) + "@" if self.credentials else ""
        return f"rtsp://{who}127.0.0.1:{port or self.port}/{path}"


class Proxy:
    """A TCP relay that can stall, cut and damage what passes."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.stalled, self.damaging, self._ended = (threading.Event() for _ in range(3))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Ends all connections there are."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended.set()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            thread = threading.Thread(target=self._relay, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while not self._ended.is_set():
                if self.stalled.is_set():
                    time.sleep(0.02)
                    continue
                for end in select.select([client, server], [], [], 0.05)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if self.damaging.is_set() and end is server:
                        data = bytes(b ^ 0x55 if i % 7 == 0 else b for i, b in enumerate(data))
                    (server if end is client else client).sendall(data)


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serves a folder by HTTP; gives its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    with served_by(functools.partial(Quiet, directory=str(folder))) as address:
        yield address


@contextlib.contextmanager
def served_by(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server's address while it runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(5)

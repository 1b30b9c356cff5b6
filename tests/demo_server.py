"""The demo as a process of its own, which notes every attempt to reach another machine.

python tests/demo_server.py NOTES OPTIONS...    what start_demo runs
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 150.0
REFUSED = "InvalidPathError"
HERE = Path(__file__).resolve()


@dataclass
class DemoServer:
    """A running demo."""

    address: str
    process: subprocess.Popen[str]
    folder: Path  # its TMPDIR
    notes: Path

    @property
    def files(self) -> list[Path]:
        """What visitors have on it: everything below the upload folder that is not Gradio's example."""
        return sorted(p for p in self.folder.glob("banet-demo-*/files/sessions/**/*") if p.is_file())

    @property
    def outside(self) -> list[str]:
        """The other machines it tried to reach."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@contextmanager
def start_demo(folder: Path, *options: str) -> Iterator[DemoServer]:
    """A demo on a free port; stopped as by Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    notes = folder / "outside.txt"
    command = [sys.executable, str(HERE), str(notes), "--no-browser", "--port", str(port), *options]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(HERE.parent.parent)}
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, text=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "Ctrl-C ends it" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield DemoServer(f"http://127.0.0.1:{port}", process, folder, notes)
        assert not bugs(log.read_text()), log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def bugs(log: str) -> list[str]:
    """Errors in the log but for what Gradio says where it refuses a path."""
    return [e for e in re.findall(r"^[\w.]*(?:Error|Exception)\b.*", log, re.MULTILINE) if REFUSED not in e]


def chromium() -> str | None:
    """The browser, where it is installed."""
    return shutil.which("chromium")


def own_addresses() -> set[str]:
    import ifaddr  # aioice's

    found = {"127.0.0.1", "::1", "0.0.0.0", "::", "localhost"}
    for adapter in ifaddr.get_adapters():
        found |= {ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in adapter.ips}
    return found


def note_outside(notes: Path) -> None:
    """Every connect, datagram and name look-up that is not about this machine becomes a line of ``notes``."""
    own = own_addresses()

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            target = arguments[1]
            host = target[0] if isinstance(target, tuple) else None
        elif event == "socket.getaddrinfo":
            host = arguments[0]
        else:
            return
        host = host.decode() if isinstance(host, bytes) else host
        if isinstance(host, str) and host and host not in own:
            with notes.open("a") as file:
                file.write(f"{event} {host}\n")

    sys.addaudithook(watch)


if __name__ == "__main__":
    note_outside(Path(sys.argv[1]))
    from banet_stream.cli import main

    main(["demo", *sys.argv[2:]])

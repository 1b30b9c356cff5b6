"""The demo in a process of its own that notes every attempt to reach another machine.

python tests/demo_server.py NOTES OPTIONS...    what watched_demo runs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve()
# What Gradio writes to the log where it refuses a path.
REFUSED = "InvalidPathError"


@dataclass
class DemoServer:
    """A running demo."""

    address: str
    folder: Path  # for its temporary files
    notes: Path

    @property
    def files(self) -> list[Path]:
        """Visitors' results, and parts of them."""
        return sorted(p for p in self.folder.glob("banet-demo-*/files/sessions/**/*") if p.is_file())

    @property
    def kept(self) -> list[Path]:
        """Every file that came from a visitor or was made for one, and the page's examples."""
        return sorted(p for p in self.folder.glob("banet-demo-*/files/**/*") if p.is_file())

    @property
    def outside(self) -> list[str]:
        """The other machines it tried to reach."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@contextmanager
def watched_demo(folder: Path, *options: str) -> Iterator[DemoServer]:
    """A demo on a free port; at the end its log holds no error of ours."""
    from demos.in_browser import start_demo

    notes = folder / "outside.txt"
    with start_demo(folder, *options, command=(sys.executable, str(HERE), str(notes))) as running:
        yield DemoServer(running.address, folder, notes)
        log = running.log.read_text()
        raised = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", log, re.MULTILINE)
        assert all(REFUSED in line for line in raised), log


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

"""What one visitor has on the server: a folder, the uploads in use, and the work under way.

Everything lies below Gradio's upload folder, which serves a file only to who knows its name; names hold a
random token (folders of sessions) or a seeded hash of the content (Gradio's uploads).
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)

# A session of which nothing was heard for so long is over, whatever its connection says.
IDLE_SECONDS = 3600.0


class Session:
    """One open page, or one client of the API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads: set[Path] = set()
        self.stops: set[threading.Event] = set()  # of work under way
        self.used = time.monotonic()

    def new_folder(self) -> Path:
        """An empty folder for one result."""
        folder = self.folder / secrets.token_urlsafe(8)
        folder.mkdir(parents=True)
        return folder

    def stop(self) -> None:
        """Ends the work under way."""
        for event in list(self.stops):
            event.set()


class Sessions:
    """All visitors; ``uploads`` is Gradio's upload folder."""

    def __init__(self, uploads: Path) -> None:
        self.uploads = uploads.resolve()
        self.root = self.uploads / "sessions"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sessions: dict[str, Session] = {}
        self._lasting: set[Path] = set()
        self._lock = threading.Lock()

    def keep_examples(self) -> None:
        """What is there now, before the first visitor, stays."""
        self._lasting = {path for path in self.uploads.glob("*/*") if path.is_file()}

    def of(self, key: str | None) -> Session:
        """The session of a request; created when first asked for."""
        self.sweep()
        with self._lock:
            key = key or ""
            if key not in self._sessions:
                self._sessions[key] = Session(self.root / secrets.token_urlsafe(16))
            session = self._sessions[key]
            session.used = time.monotonic()
            return session

    def find(self, key: str | None) -> Session | None:
        """The session of a request, if there is one."""
        with self._lock:
            return self._sessions.get(key or "")

    def adopt(self, session: Session, *paths: str | None) -> None:
        """Uploads that ``session`` uses: they go when the last session that uses them does."""
        for path in paths:
            if path and Path(path).resolve().is_relative_to(self.uploads):
                session.uploads.add(Path(path).resolve())

    def close(self, key: str | None) -> None:
        """Stops the visitor's work and removes the visitor's files."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
            kept = self._lasting.union(*(other.uploads for other in self._sessions.values()))
        if session is None:
            return
        session.stop()
        shutil.rmtree(session.folder, ignore_errors=True)
        for path in session.uploads - kept:
            remove(path)

    def sweep(self) -> None:
        """Closes sessions long unused, and removes uploads that no session came back for."""
        with self._lock:
            idle = [
                key
                for key, session in self._sessions.items()
                if not session.stops and time.monotonic() - session.used > IDLE_SECONDS
            ]
        for key in idle:
            self.close(key)
        with self._lock:
            kept = self._lasting.union(*(session.uploads for session in self._sessions.values()))
        oldest = time.time() - IDLE_SECONDS
        for path in self.uploads.glob("*/*"):
            if path.is_file() and path not in kept and path.stat().st_mtime < oldest:
                remove(path)


def remove(path: Path) -> None:
    """Unlinks a file, and its folder when that was the last one in it."""
    try:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    except OSError as error:
        log.debug("removing %s: %s", path, error)

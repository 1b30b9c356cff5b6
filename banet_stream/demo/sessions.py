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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import Interrupted

log = logging.getLogger(__name__)

# A session of which nothing was heard for so long is over, whatever its connection says.
IDLE_SECONDS = 3600.0
# Between two looks for what nobody comes back for.
SWEEP_SECONDS = 60.0
# Of pictures that the page shows; what is downloaded is a PNG.
JPEG_OPTIONS = {"quality": 90, "subsampling": 0}


class Session:
    """One open page, or one client of the API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads: set[Path] = set()
        self.stops: set[threading.Event] = set()  # of work under way
        self.used = time.monotonic()
        self.closed = False

    @contextmanager
    def result_folder(self) -> Iterator[Path]:
        """An empty folder for one result; of a page closed meanwhile, nothing stays.

        Raises:
            Interrupted: when the page was closed, at the beginning or at the end.
        """
        folder = self.folder / secrets.token_urlsafe(8)
        try:
            if not self.closed:
                folder.mkdir(parents=True)
                yield folder
        except OSError:
            if not self.closed:  # else the folder went while it was written to
                raise
        finally:
            if self.closed:
                shutil.rmtree(self.folder, ignore_errors=True)
        if self.closed:
            raise Interrupted("The page was closed, or its connection was lost. Try again.")

    def begin(self, stop: threading.Event) -> None:
        """Counts work as under way, until ``end``; a page already closed stops it at once."""
        self.stops.add(stop)
        if self.closed:
            stop.set()

    def end(self, stop: threading.Event) -> None:
        """The work is done, and the time that the visitor is given for its result begins."""
        self.stops.discard(stop)
        self.used = time.monotonic()

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
        self._ended = threading.Event()

    def keep_examples(self) -> None:
        """What is there now, before the first visitor, stays."""
        self._lasting = {path for path in self.uploads.glob("*/*") if path.is_file()}

    def of(self, key: str | None) -> Session:
        """The session of a request; created when first asked for."""
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
        found = {Path(path).resolve() for path in paths if path}
        with self._lock:
            session.uploads |= {path for path in found if path.is_relative_to(self.uploads)}

    def close(self, key: str | None) -> None:
        """Stops the visitor's work and removes the visitor's files."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
            kept = self._lasting.union(*(other.uploads for other in self._sessions.values()))
        if session is None:
            return
        session.closed = True
        session.stop()
        shutil.rmtree(session.folder, ignore_errors=True)
        for path in session.uploads - kept:
            remove(path)

    def sweep(self) -> None:
        """Closes sessions long unused; removes folders without a session, and uploads none came back for."""
        with self._lock:
            idle = [
                key
                for key, session in self._sessions.items()
                if not session.stops and time.monotonic() - session.used > IDLE_SECONDS
            ]
        for key in idle:
            self.close(key)
        # Listed before it is known whose they are: what a new session makes from now on is not among them.
        folders = list(self.root.iterdir())
        uploads = [*self.uploads.glob("*"), *self.uploads.glob("*/*")]  # half-arrived ones lie in no folder
        with self._lock:
            owned = {session.folder for session in self._sessions.values()}
            kept = self._lasting.union(*(session.uploads for session in self._sessions.values()))
        for folder in folders:
            if folder not in owned:
                shutil.rmtree(folder, ignore_errors=True)
        oldest = time.time() - IDLE_SECONDS
        for path in uploads:
            if path not in kept and is_file_before(path, oldest):
                remove(path)

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """Sweeps now and then, from a thread of its own, until the end of the block."""
        thread = threading.Thread(target=self._sweep_on, name="banet-demo-sweep", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _sweep_on(self) -> None:
        while not self._ended.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except OSError as error:  # the next time, perhaps
                log.warning("sweeping: %s", error)


def is_file_before(path: Path, oldest: float) -> bool:
    """Whether it is a file last written before ``oldest``, in seconds since the epoch."""
    try:
        return path.is_file() and path.stat().st_mtime < oldest
    except OSError:  # gone meanwhile
        return False


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> str:
    """[H, W, 3] RGB or [H, W] grey, as a page shows it; returns the path.

    Gradio would make arrays files of its own, which belong to nobody and stay.
    """
    Image.fromarray(pixels).save(path, "JPEG", **JPEG_OPTIONS)
    return str(path)


def remove(path: Path) -> None:
    """Unlinks a file, and its folder when that was the last one in it."""
    try:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    except OSError as error:
        log.debug("removing %s: %s", path, error)

"""Locks on files: one run at a time writes in a place. They are gone with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import OutputError


def lock(file: IO[Any], busy: str) -> None:
    """Locks an opened file until it is closed.

    Raises:
        OutputError: saying ``busy``, when another run holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(busy) from None


@contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """Holds the lock of what is replaced while it is written, such as a playlist: a dot file beside it, which
    goes at the end.

    Raises:
        OutputError: when another run holds it, or it can't be made.
    """
    place = path.with_name(f".{path.name}.lock")
    while True:
        try:
            file = place.open("w")
        except OSError as error:
            raise OutputError(f"{place}: can't be created ({error.strerror})") from error
        with file:
            lock(file, f"{path}: another run writes it; choose another name")
            if not is_at(file, place):
                continue  # its holder removed it between our two steps
            try:
                yield
            finally:
                with suppress(OSError):
                    place.unlink()
            return


def is_at(file: IO[Any], path: Path) -> bool:
    """Whether an opened file still has that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False

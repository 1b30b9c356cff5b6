"""When standard output can't be written: its reader has left, or the disk is full."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def ending_unread() -> Iterator[None]:
    """A block that prints what it found, and ends through ``SystemExit(1)`` where that can't be written."""
    try:
        yield
        print(end="", flush=True)
    except OSError as error:
        if not (isinstance(error, BrokenPipeError) or is_lost(sys.stdout)):
            raise
        go_on_without_output(error)
        sys.exit(1)


def is_lost(stream: TextIO | None) -> bool:
    """Whether nothing more can be written there."""
    try:
        print(end="", file=stream, flush=True)
    except OSError:
        return True
    return False


def go_on_without_output(error: OSError) -> None:
    """For when its reader has left, as in ``banet-stream doctor | head``, or the disk is full."""
    if not isinstance(error, BrokenPipeError):
        print(f"note: standard output can't be written: {error.strerror}", file=sys.stderr)
    sys.stdout = None  # or Python fails once more at its end

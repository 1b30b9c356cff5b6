"""An end at once, while imports are under way and there is nothing to keep."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Interrupted


@contextmanager
def leaving_at_once(tidy: Callable[[], None], *more: signal.Signals) -> Iterator[None]:
    """In this block Ctrl-C, and ``more`` signals, call ``tidy`` and end the process; after it they raise
    ``KeyboardInterrupt``.

    Imports that one breaks off print its traceback, and some, Gradio's among them, lose it now and then.
    """

    def leave(_: int, __: FrameType | None) -> None:
        tidy()
        os._exit(Interrupted.exit_code)

    ending = [*more]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs ignore it
        ending.append(signal.SIGINT)
    for number in ending:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.default_int_handler)

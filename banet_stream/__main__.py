"""The command's entry point: ``banet-stream`` and ``python -m banet_stream``."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from .errors import Interrupted


def main() -> None:
    """Imports PyTorch and all the rest, a second or two in which Ctrl-C finds nothing to keep, and runs the
    command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from .cli import main as command  # noqa: PLC0415

    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


def leave(_: int, __: FrameType | None) -> None:
    """Ends the process at once: an import that is broken off would print its traceback."""
    if sys.stderr is not None:
        print("\nbanet-stream: interrupted", file=sys.stderr, flush=True)
    os._exit(Interrupted.exit_code)


if __name__ == "__main__":
    main()

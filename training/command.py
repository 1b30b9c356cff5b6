"""How the commands of this folder end when they can't do what they were asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from banet_stream.errors import BanetStreamError, Interrupted
from banet_stream.printing import ending_unread


@contextmanager
def command(name: str, interrupted: str = "interrupted") -> Iterator[None]:
    """The body of ``python -m training.NAME``: what is wrong, and Ctrl-C, become one line on standard error.
    Where nobody reads its output, as in ``... | head``, it ends quietly.

    Leaves through ``SystemExit`` with the error's exit code.
    """
    try:
        with ending_unread():
            yield
    except BanetStreamError as error:
        end(name, str(error), error.exit_code)
    except KeyboardInterrupt:
        end(name, interrupted, Interrupted.exit_code)


def end(name: str, why: str, code: int) -> None:
    print(f"training.{name}: {why}", file=sys.stderr)
    sys.exit(code)

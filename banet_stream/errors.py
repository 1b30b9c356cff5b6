"""Every error a user can meet.

    BanetStreamError                exit 1    anything else the tool refuses
    ├── UsageError                  exit 2    the command or an argument makes no sense
    ├── InputError                  exit 3    the source can't be opened or holds no video
    ├── BackgroundError             exit 4    the background can't be read
    ├── OutputError                 exit 5    the output can't be created or written
    ├── DeviceError                 exit 6    the asked-for device, precision or backend is not here
    ├── WeightsError                exit 7    a model's weights are missing or damaged
    ├── MatteError                  exit 8    the network failed on a frame
    ├── IncompleteInput             exit 9    the source was cut off or damaged; the rest is in OUTPUT
    ├── PromiseBroken               exit 10   --verify found a difference; OUTPUT is there
    └── Interrupted                 exit 130  Ctrl-C; the part file is kept and named

The message is one line that says what is wrong, why, and what to do. ``assert`` and other
exceptions are for our own bugs only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stream import Summary


class BanetStreamError(Exception):
    """Base of all errors that are the user's to solve; ``exit_code`` is the command's exit status."""

    exit_code = 1


class UsageError(BanetStreamError):
    """The command or an argument makes no sense."""

    exit_code = 2


class InputError(BanetStreamError):
    """The source can't be opened or holds no video."""

    exit_code = 3


class BackgroundError(BanetStreamError):
    """The background can't be read."""

    exit_code = 4


class OutputError(BanetStreamError):
    """The output can't be created or written."""

    exit_code = 5


class DeviceError(BanetStreamError):
    """The asked-for device, precision or backend is not here."""

    exit_code = 6


class WeightsError(BanetStreamError):
    """A model's weights are missing or damaged."""

    exit_code = 7


class MatteError(BanetStreamError):
    """The network failed on a frame."""

    exit_code = 8


class IncompleteInput(BanetStreamError):
    """``summary`` is what ``process`` would have returned; None: there is none, ``iter_mattes`` raised it."""

    exit_code = 9

    def __init__(self, message: str, summary: Summary | None = None) -> None:
        super().__init__(message)
        self.summary = summary


class PromiseBroken(BanetStreamError):
    """``summary`` is what ``process`` would have returned, with the findings."""

    exit_code = 10

    def __init__(self, message: str, summary: Summary) -> None:
        super().__init__(message)
        self.summary = summary


class Interrupted(BanetStreamError):
    """Ctrl-C; the part file is kept and named."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """What a library's error says, on one line; some say nothing but their name."""
    return (str(error) or type(error).__name__).splitlines()[0]

"""What every kind of output has in common: its place is checked first, and it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OutputError
from .frame import Frame, Packet
from .numbering import is_pattern, makes
from .opening import is_url

if TYPE_CHECKING:
    from .codecs import EncodeOptions
    from .decode import Source
    from .photo import Photo


class Output(ABC):
    """Where frames go: ``open`` with the first, ``write`` each, ``flush``, and ``finish`` or ``abandon``.

    Attributes:
        path: what the user named. part: where it is written until it is whole; None: not begun, or nothing
            left of it.
        opened: the first frame was seen. frames: written so far; resumed_frames: those of an earlier run.
        notices: what could not be kept. encoder: what wrote it. after_error: what is left then.
        announce: called with what is to be said before the work begins.
    """

    path: Path
    source: Source | Photo
    part: Path | None = None
    opened: bool = False
    frames: int = 0
    resumed_frames: int = 0
    encoder: str = ""
    after_error: str = "nothing is left there, make room and start again"

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.announce: Callable[[str], None] = lambda text: None

    @abstractmethod
    def open(self, first: Frame) -> None:
        """Creates the part file for frames like ``first``."""

    @abstractmethod
    def write(self, item: Frame | Packet) -> None:
        """Takes a frame, or a packet of sound or subtitles."""

    @abstractmethod
    def flush(self) -> None:
        """Writes what is still held back and closes the part file."""

    @abstractmethod
    def finish(self) -> None:
        """Moves the part file to OUTPUT.

        Raises:
            OutputError: when that can't be done, naming the part file, which stays.
        """

    def close(self) -> None:
        """Lets go of what is held from the beginning on; harmless after the others, and twice."""
        return

    @abstractmethod
    def abandon(self, *, keep: bool) -> None:
        """Closes the part file early; ``keep`` leaves it there, usable as far as it goes."""


def check_place(path: Path, *, overwrite: bool) -> None:
    """Whether a file can be made here.

    Raises:
        OutputError: naming what is wrong and what to do.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; name the file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; create it first")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; use --overwrite to replace it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write in {path.parent}")


def refuse_to_overwrite(path: str | Path | None, inputs: dict[str, str]) -> None:
    """What is read is never written to, whatever the options say and however its name is spelled.

    Args:
        inputs: what each file is to the user -> its name; empty names and URLs are passed over.

    Raises:
        OutputError: naming the file and what it is.
    """
    if path is None:
        return
    output = Path(path)
    for role, name in inputs.items():
        if name and not is_url(name) and Path(name).exists() and is_same(output, Path(name)):
            raise OutputError(f"{path}: is {role} itself; choose another name")


def is_same(output: Path, other: Path) -> bool:
    """Whether writing ``output``, a file or numbered pictures, writes to the file ``other``."""
    if is_pattern(output):
        beside = output.parent.resolve() == other.parent.resolve()
        return beside and makes(output.name, other.name)
    return output.exists() and output.samefile(other)


def check_no_rate(path: Path, options: EncodeOptions) -> None:
    rate = options.crf is not None or options.bit_rate is not None
    if options.codec or rate or options.encoder != "auto":
        raise OutputError(
            f"{path}: --codec, --encoder, --crf and --bitrate are for video; this has one quality"
        )


def free_part(path: Path, *, folder: bool = False) -> Path:
    """Creates ``name.part.ext`` beside OUTPUT, or with a number where an interrupted run left one."""
    for number in range(1, 1000):
        label = "part" if number == 1 else f"part{number}"
        part = path.with_name(f"{path.stem}.{label}{path.suffix}")
        try:
            if folder:
                part.mkdir()
            else:
                part.touch(exist_ok=False)
        except FileExistsError:
            continue
        return part
    raise OutputError(f"{path}: a thousand part files lie beside it; remove them")


def move_into_place(part: Path, path: Path, *, overwrite: bool) -> None:
    """The part file becomes OUTPUT, unless something else did meanwhile.

    Raises:
        OutputError: naming the part file, which stays.
    """
    try:
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: came to be meanwhile; the result is in {part}")
        part.replace(path)
    except OSError as error:  # permissions taken away, an immutable file, a folder of that name
        raise OutputError(f"{path}: can't be written: {error.strerror}; the result is in {part}") from error


def describe_size(path: Path, byte_count: float, frames: int, how: str) -> str:
    """What is said before a large output is begun: its size and what is free."""
    free = shutil.disk_usage(path.parent).free
    short = "; THAT IS NOT ENOUGH" if byte_count > free else ""
    return f"{path}: about {readable(byte_count)} for {frames} frames ({how}); {readable(free)} free{short}"


def readable(byte_count: float) -> str:
    """``1.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if byte_count < 1000:
            return f"{byte_count:.0f} {unit}" if byte_count >= 10 else f"{byte_count:.1f} {unit}"
        byte_count /= 1000
    return f"{byte_count:.1f} TB"

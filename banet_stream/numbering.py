"""Names of numbered pictures, as FFmpeg writes them: ``out/%06d.png``."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import OutputError

PATTERN = re.compile(r"%0?\d*d")


def is_pattern(path: Path) -> bool:
    """Whether OUTPUT names numbered pictures."""
    return path.suffix.lower() == ".png" and bool(PATTERN.search(path.name))


def check_pattern(path: Path) -> None:
    """Whether it holds one number, in the file's name.

    Raises:
        OutputError: when it does not.
    """
    if len(PATTERN.findall(path.name)) != 1 or "%" in PATTERN.sub("", path.name):
        raise OutputError(f"{path}: must hold one number, as in %06d.png")
    if "%" in str(path.parent):
        raise OutputError(f"{path}: the number belongs into the file's name, as in out/%06d.png")


def numbered(pattern: str, number: int) -> str:
    """The name of one picture."""
    return PATTERN.sub(lambda found: found[0] % number, pattern)


def makes(pattern: str, name: str) -> bool:
    """Whether ``name`` is one that the pattern gives to some picture."""
    before, after = PATTERN.split(pattern)
    found = re.fullmatch(re.escape(before) + r" *(\d+)" + re.escape(after), name)
    return found is not None and numbered(pattern, int(found[1])) == name


def may_meet(one: Path, other: Path) -> bool:
    """Whether two patterns give the same name to some pictures."""
    alike = PATTERN.split(one.name) == PATTERN.split(other.name)
    return alike and one.parent.resolve() == other.parent.resolve()

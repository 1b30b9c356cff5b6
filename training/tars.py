"""Sets that are made here: tars of KEY.jpg, KEY.png and maybe KEY.weight.png."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2

from banet_stream.errors import InputError, OutputError

from .pairs import Array, Pair, content


def write(path: Path, files: Iterator[tuple[str, bytes]]) -> None:
    """A tar of (name, content), whole or not at all.

    Raises:
        InputError: when two files have one name.
        OutputError: when it can't be written.
    """
    part = path.with_suffix(".part")
    names: set[str] = set()
    try:
        with tarfile.open(part, "w") as tar:
            for name, file in files:
                if name in names:
                    raise InputError(f"{path}: two pictures of the set would be {name}; rename one of them")
                names.add(name)
                member = tarfile.TarInfo(name)
                member.size = len(file)
                tar.addfile(member, io.BytesIO(file))
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


def files_of(pair: Pair, matte: Array, weight: Array | None = None) -> Iterator[tuple[str, bytes]]:
    """A picture with another matte."""
    key = pair.key.rpartition(": ")[2].replace("/", "-").replace(".", "-")
    yield f"{key}.jpg", jpeg(pair)
    yield f"{key}.png", packed(matte)
    if weight is not None:
        yield f"{key}.weight.png", packed(weight)


def packed(plane: Array) -> bytes:
    return cv2.imencode(".png", plane)[1].tobytes()


def jpeg(pair: Pair) -> bytes:
    """The picture's own file where it is a JPEG, so that it loses nothing."""
    own = content(pair.image)
    if own[:2] == b"\xff\xd8":
        return own
    bgr = cv2.cvtColor(pair.decode().image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

"""ICC profiles (v2) that differ from sRGB."""

from __future__ import annotations

import struct
from collections.abc import Mapping

# D50, as fixed-point numbers.
WHITE = struct.pack(">3i", 63190, 65536, 54061)


def wide_profile() -> bytes:
    """Of larger primaries than sRGB's: Adobe RGB's, adapted to D50, with gamma 2.2."""
    columns = {
        "r": (0.60974, 0.31111, 0.01947),
        "g": (0.20528, 0.62567, 0.06087),
        "b": (0.14919, 0.06322, 0.74457),
    }
    tags = {}
    for name, column in columns.items():
        fixed = struct.pack(">3i", *(round(65536 * value) for value in column))
        tags[f"{name}XYZ".encode()] = b"XYZ \0\0\0\0" + fixed
        tags[f"{name}TRC".encode()] = curve(2.2)
    return packed(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    """Of grey with that gamma."""
    return packed(b"GRAY", {b"kTRC": curve(gamma)})


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def packed(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """A profile of a colour space, with what every one has."""
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"none\0" + bytes(78)
    whole = {b"desc": text, b"wtpt": b"XYZ \0\0\0\0" + WHITE, b"cprt": b"text\0\0\0\0none\0", **tags}
    table, body = struct.pack(">I", len(whole)), b""
    for name, data in whole.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(whole) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    head = (
        struct.pack(">I4sI4s4s4s", size, b"none", 0x02200000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    )
    return (head.ljust(68, b"\0") + WHITE).ljust(128, b"\0") + table + body

"""What data sets' own label files say: class pictures, alpha channels, MATLAB masks, Supervisely's JSON."""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from banet_stream.errors import InputError, UsageError

from .pairs import Array, Label, unpack

# Supervisely Person's classes: people painted or outlined, and what its annotators did not judge.
PERSON_CLASSES, NEUTRAL_CLASSES = ("person_bmp", "person_poly", "person"), ("neutral",)


def classes(content: bytes, size: tuple[int, int]) -> Label | None:
    """A picture of classes: 0 is background, anything else person (1 in EG1800, 255 elsewhere)."""
    del size
    found = unpack(content, cv2.IMREAD_UNCHANGED)
    if found is None:
        return None
    return Label(np.where((found if found.ndim == 2 else found[..., 0]) > 0, np.uint8(255), np.uint8(0)))


def alpha_channel(content: bytes, size: tuple[int, int]) -> Label | None:
    """The cut-out person as RGBA; the alpha channel is the matte."""
    del size
    found = unpack(content, cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3 or found.shape[2] != 4:
        return None
    return Label(np.ascontiguousarray(found[..., 3]))


def matlab_mask(content: bytes, size: tuple[int, int]) -> Label | None:
    """A MATLAB file with one matrix: 0 is background, anything else person."""
    del size
    matrices = matlab(content)
    if len(matrices) != 1 or matrices[0].ndim != 2:
        return None
    return Label(np.where(matrices[0] > 0, np.uint8(255), np.uint8(0)))


def matlab_numbers(path: Path) -> set[int]:
    """All numbers of a MATLAB file: a list of pictures.

    Raises:
        InputError: when it can't be read.
    """
    try:
        matrices = matlab(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error})") from error
    if not matrices:
        raise InputError(f"{path}: can't be read as a MATLAB file")
    return {int(number) for matrix in matrices for number in matrix.ravel()}


def matlab(content: bytes) -> list[Any]:
    """The matrices of a MATLAB file; none where it is damaged."""
    try:
        reader = importlib.import_module("scipy.io")
    except ImportError as error:
        raise UsageError("PFCN+'s .mat files: need SciPy; pip install scipy") from error
    try:
        found = reader.loadmat(io.BytesIO(content))
    except Exception:
        return []
    return [value for name, value in found.items() if not name.startswith("__")]


def supervisely(content: bytes, size: tuple[int, int]) -> Label | None:
    """Supervisely's JSON: people as bitmaps or polygons with holes, in the order they were laid down.

    What is marked neutral does not count. None where the file is damaged.
    """
    matte, weight = np.zeros(size, np.uint8), np.full(size, 255, np.uint8)
    try:
        for thing in json.loads(content)["objects"]:
            area = bitmap(thing["bitmap"], size) if thing.get("bitmap") else polygon(thing["points"], size)
            name = thing["classTitle"]
            if name in PERSON_CLASSES:
                matte[area], weight[area] = 255, 255
            elif name in NEUTRAL_CLASSES:
                weight[area] = 0
    except (ValueError, KeyError, TypeError, IndexError, binascii.Error, zlib.error, cv2.error):
        return None
    return Label(matte, None if weight.all() else weight)


def bitmap(found: dict[str, Any], size: tuple[int, int]) -> Any:
    """A bitmap (base64 of zlib of PNG: its alpha channel, or its only one) at its origin; [H, W] bool."""
    packed = zlib.decompress(base64.b64decode(found["data"]))
    picture = unpack(packed, cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("the bitmap is no picture")
    inside = picture if picture.ndim == 2 else picture[..., -1]
    area = np.zeros(size, np.bool_)
    x, y = (int(value) for value in found["origin"])
    left, top = max(0, x), max(0, y)
    cut = inside[top - y : max(0, size[0] - y), left - x : max(0, size[1] - x)] > 0
    area[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return area


def polygon(points: dict[str, Any], size: tuple[int, int]) -> Any:
    """A polygon without its holes; [H, W] bool. Points are (x, y) in pixels."""
    drawn: Array = np.zeros(size, np.uint8)
    cv2.fillPoly(drawn, [np.round(np.array(points["exterior"], np.float64)).astype(np.int32)], 1)
    for hole in points["interior"]:
        cv2.fillPoly(drawn, [np.round(np.array(hole, np.float64)).astype(np.int32)], 0)
    return drawn > 0

"""Tiny training sets that the tests make: a bright ellipse stands for a person, grey noise for a room."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np

# Set name -> pictures; every name that a run needs.
SETS = {"portraits-train": 6, "studio-train": 2, "portraits-val": 3, "backgrounds": 3}
TRAINED = {"portraits-train": 0.8, "studio-train": 0.1, "backgrounds": 0.1}


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def jpg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def person(seed: int, rows: int = 96, columns: int = 72) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and mask [H, W], both uint8."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((rows, columns), np.uint8)
    centre = (int(columns * rng.uniform(0.35, 0.65)), int(rows * 0.7))
    cv2.ellipse(mask, centre, (int(columns * rng.uniform(0.2, 0.35)), rows // 2), 0, 0, 360, 255, -1)
    image = room(seed, rows, columns)
    image[mask == 255] = (90, 140, 230)  # BGR, as OpenCV writes it
    return image, mask


def room(seed: int, rows: int = 96, columns: int = 72) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(20, 90, (rows // 8, columns // 8, 1), np.uint8)
    return cv2.resize(np.repeat(noise, 3, 2), (columns, rows), interpolation=cv2.INTER_NEAREST)


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_sets(root: Path) -> Path:
    """The folder with all tars of ``SETS``."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (name, count) in enumerate(SETS.items()):
        files = {}
        for i in range(count):
            image, mask = person(100 * number + i)
            if name == "backgrounds":
                files[f"b{i}.jpg"] = jpg(room(100 * number + i))
            else:
                files |= {f"p{i}.jpg": jpg(image), f"p{i}.png": png(mask)}
        write_tar(root / f"{name}.tar", files)
    return root

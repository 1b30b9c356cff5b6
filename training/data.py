"""Training samples: sets read into memory, drawn by weight, augmented, with their boundary targets.

Sample i of an iteration depends only on (seed, iteration, i): neither on the samples before it nor on how
many processes make them. So the iteration is the data cursor, and a resumed run sees what it would have seen.
"""

from __future__ import annotations

import os
import signal
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from banet_stream.errors import InputError, UsageError
from banet_stream.network import MEAN, STD

from . import augment, targets

Array = NDArray[np.uint8]
Batch = tuple[Tensor, Tensor, Tensor]  # image, matte, boundary

# The one set whose pictures hold no person, and hence need no mattes.
BACKGROUNDS = "backgrounds"
PICTURES = ("jpg", "jpeg")


@dataclass(frozen=True)
class Pair:
    """One picture and its matte, still compressed (a set of thousands stays below 100 MB in memory)."""

    key: str  # the tar's name and the picture's
    image: bytes
    matte: bytes | None  # None: nobody is in the picture

    def decode(self) -> tuple[Array, Array]:  # [H, W, 3] uint8 RGB, [H, W] uint8 (255 = person)
        image = unpack(self.image, cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise InputError(f"{self.key}: the picture can't be decoded")
        if self.matte is None:
            return image, np.zeros(image.shape[:2], np.uint8)
        matte = unpack(self.matte, cv2.IMREAD_GRAYSCALE)
        if matte is None:
            raise InputError(f"{self.key}: the matte can't be decoded")
        if matte.shape != image.shape[:2]:
            raise InputError(
                f"{self.key}: the matte is {list(matte.shape)}, the picture {list(image.shape[:2])}"
            )
        return image, matte


def unpack(content: bytes, flags: int) -> Array | None:
    """None where the bytes are no whole picture."""
    if not content:
        return None  # OpenCV raises on these
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return None if picture is None else picture.astype(np.uint8, copy=False)


def read_tar(path: Path, *, mattes: bool = True) -> list[Pair]:
    """A WebDataset tar: KEY.jpg with KEY.png (the matte), sorted by key.

    Args:
        path: the tar.
        mattes: every picture must have one; without, the pictures hold nobody and must have none.

    Raises:
        InputError: when the tar can't be read, holds no picture, or a matte is missing (or is one too many).
    """
    files: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is not None:
                    key, _, suffix = Path(member.name).name.rpartition(".")
                    files.setdefault(key, {})[suffix.lower()] = content.read()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path}: can't be read as a tar ({error})") from error
    pairs = []
    for key, found in sorted(files.items()):
        image = next((found[suffix] for suffix in PICTURES if suffix in found), None)
        if image is None:
            continue
        if mattes != ("png" in found):
            wrong = "has no matte" if mattes else "has a matte, but this set must hold no person"
            raise InputError(f"{path}: {key}.jpg {wrong} ({key}.png)")
        pairs.append(Pair(f"{path.name}: {key}", image, found.get("png")))
    if not pairs:
        raise InputError(f"{path}: holds no .jpg")
    return pairs


class Samples(IterableDataset[Batch]):
    """Batches for the iterations of ``span``: image [B, 3, H, W], matte [B, 1, H, W], boundary [B, 1, H, W].

    Args:
        root: folder of the tars, among them backgrounds.tar.
        weights: set name -> how often it is drawn (any scale).
        batch: samples per iteration.
        shapes: the crop of an iteration.
        span: iterations to make batches for.
        seed: of everything random here.

    Raises:
        UsageError: when no set is named.
        InputError: when a tar is missing or wrong.
    """

    def __init__(
        self,
        root: Path,
        weights: Mapping[str, float],
        *,
        batch: int,
        shapes: augment.Shapes,
        span: range,
        seed: int,
    ) -> None:
        if not weights or min(weights.values()) < 0 or not sum(weights.values()):
            raise UsageError(f"--sets: needs sets with weights of 0 or more, got {dict(weights)}")
        wanted = {name: root / f"{name}.tar" for name in (*weights, BACKGROUNDS)}
        missing = [str(path) for path in wanted.values() if not path.is_file()]
        if missing:
            raise InputError(f"--data {root}: there is no {', '.join(missing)}")
        self.sets = {name: read_tar(path, mattes=name != BACKGROUNDS) for name, path in wanted.items()}
        total = sum(weights.values())
        self.names, self.chances = list(weights), [weight / total for weight in weights.values()]
        self.batch, self.shapes, self.span, self.seed = batch, shapes, span, seed

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(0)  # the processes are the parallelism
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for iteration in self.span[first::step]:
            yield self.make(iteration)

    def make(self, iteration: int) -> Batch:
        """The batch of one iteration."""
        # numpy pads seeds with zeros: (seed, iteration) would repeat (seed, iteration, 0).
        height, width = self.shapes(np.random.default_rng((self.seed, iteration, 0)), iteration)
        samples = [self.sample(iteration, i, height, width) for i in range(self.batch)]
        images, mattes, boundaries = (np.stack(column) for column in zip(*samples, strict=True))
        return to_input(images), to_unit(mattes), to_unit(boundaries)

    def sample(self, iteration: int, index: int, height: int, width: int) -> tuple[Array, Array, Array]:
        """Image [H, W, 3], matte [H, W] and boundary [H, W], all uint8."""
        rng = np.random.default_rng((self.seed, iteration, index + 1))
        name = self.names[rng.choice(len(self.names), p=self.chances)]
        image, matte = pick(self.sets[name], rng).decode()
        if name != BACKGROUNDS and rng.random() < augment.composite_chance(name):
            room, _ = pick(self.sets[BACKGROUNDS], rng).decode()
            image, matte = augment.composite(image, matte, room, height, width, rng=rng)
        else:
            image, matte = augment.warp(image, matte, height, width, rng=rng)
        return augment.photometric(image, rng), matte, targets.boundary(matte)


def pick(pairs: list[Pair], rng: np.random.Generator) -> Pair:
    return pairs[rng.integers(len(pairs))]


def to_input(images: Array) -> Tensor:
    """[B, H, W, 3] uint8 RGB -> [B, 3, H, W] float32, normalised, in channels-last memory."""
    mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
    return ((torch.from_numpy(images) - mean) / std).permute(0, 3, 1, 2)


def to_unit(maps: Array) -> Tensor:
    """[B, H, W] uint8 -> [B, 1, H, W] float32 in 0..1."""
    return torch.from_numpy(maps).unsqueeze(1) / 255


def batches(samples: Samples, *, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
    """Whole batches, in order, made by ``workers`` processes (0: by this one).

    Raises:
        InputError: when a picture or its matte is damaged; the message names it.
    """
    loader = DataLoader(
        samples,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_parent,
    )
    try:
        yield from loader
    except InputError as error:  # from a worker it comes with that process's whole traceback as its text
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from error


def leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and ``kill`` of a whole run must reach the parent alone: it finishes, saves, and ends us.

    A group of our own does that, where ignoring SIGTERM would not: it is how the parent ends us at its exit.
    """
    del worker
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's own handler came with the fork

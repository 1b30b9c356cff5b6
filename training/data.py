"""Training samples: sets read into memory, drawn by weight, augmented, with their boundary targets.

Sample i of a run depends only on (seed, i), so a resumed run sees exactly the samples it would have seen.
"""

from __future__ import annotations

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

from banet_stream.network import MEAN, STD

from . import augment, targets

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """One picture and its matte, still compressed (a set of thousands stays below 100 MB in memory)."""

    key: str
    image: bytes
    matte: bytes | None

    def decode(self) -> tuple[Array, Array]:  # [H, W, 3] uint8 RGB, [H, W] uint8 (255 = person)
        image = cv2.imdecode(np.frombuffer(self.image, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError(f"{self.key}: the picture can't be decoded")
        if self.matte is None:
            return image, np.zeros(image.shape[:2], np.uint8)
        matte = cv2.imdecode(np.frombuffer(self.matte, np.uint8), cv2.IMREAD_GRAYSCALE)
        if matte is None or matte.shape != image.shape[:2]:
            found = (
                "can't be decoded" if matte is None else f"is {matte.shape}, the picture {image.shape[:2]}"
            )
            raise ValueError(f"{self.key}: the matte {found}")
        return image, matte


def read_tar(path: Path) -> list[Pair]:
    """A WebDataset tar: KEY.jpg with KEY.png (the matte); without one the picture holds no person."""
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                key, _, suffix = Path(member.name).name.rpartition(".")
                files.setdefault(key, {})[suffix.lower()] = content.read()
    pairs = [Pair(k, f["jpg"], f.get("png")) for k, f in sorted(files.items()) if "jpg" in f]
    if not pairs:
        raise ValueError(f"{path}: holds no .jpg")
    return pairs


class Samples(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches for iterations [start, stop): image [B, 3, H, W], matte [B, 1, H, W], boundary [B, 1, H, W]."""

    def __init__(
        self,
        root: Path,
        weights: Mapping[str, float],
        batch: int,
        shapes: augment.Shapes,
        span: range,
        seed: int,
    ) -> None:
        self.sets = {name: read_tar(root / f"{name}.tar") for name in weights}
        self.backgrounds = read_tar(root / "backgrounds.tar")
        total = sum(weights.values())
        self.names, self.chances = list(weights), [w / total for w in weights.values()]
        self.batch, self.shapes, self.span, self.seed = batch, shapes, span, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        cv2.setNumThreads(0)
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for iteration in self.span[first::step]:
            height, width = self.shapes(np.random.default_rng((self.seed, iteration)), iteration)
            samples = [self.sample(iteration, i, height, width) for i in range(self.batch)]
            images, mattes, boundaries = (np.stack(column) for column in zip(*samples, strict=True))
            yield to_input(images), to_unit(mattes), to_unit(boundaries)

    def sample(self, iteration: int, index: int, height: int, width: int) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng((self.seed, iteration, index))
        name = self.names[rng.choice(len(self.names), p=self.chances)]
        image, matte = pick(self.sets[name], rng).decode()
        if name == "backgrounds":
            image, matte = augment.warp(image, matte, height, width, rng)
        elif name == "studio-train" or rng.random() < augment.COMPOSITE_CHANCE[name]:
            background, _ = pick(self.backgrounds, rng).decode()
            image, matte = augment.composite(image, matte, background, height, width, rng)
        else:
            image, matte = augment.warp(image, matte, height, width, rng)
        image = augment.photometric(image, rng)
        return image, matte, targets.boundary(matte)


def pick(pairs: list[Pair], rng: np.random.Generator) -> Pair:
    return pairs[rng.integers(len(pairs))]


def to_input(
    images: Array,
) -> Tensor:  # [B, H, W, 3] uint8 RGB -> [B, 3, H, W] normalised, channels-last memory
    mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
    return ((torch.from_numpy(images) - mean) / std).permute(0, 3, 1, 2)


def to_unit(maps: Array) -> Tensor:  # [B, H, W] uint8 -> [B, 1, H, W] float32 in 0..1
    return torch.from_numpy(maps).unsqueeze(1) / 255


def loader(samples: Samples, workers: int) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Whole batches, in order, made by ``workers`` processes."""
    return DataLoader(samples, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)

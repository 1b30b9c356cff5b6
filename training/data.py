"""Training samples: sets drawn by weight, augmented, with their boundary targets.

Sample i of an iteration depends only on (seed, iteration, i): neither on the samples before it nor on how
many processes make them. So the iteration is the data cursor, a resumed run sees what it would have seen,
and several training processes share out the samples that one would have had.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from banet_stream.errors import InputError, UsageError
from banet_stream.network import MEAN, STD

from . import augment, targets
from .pairs import Array, Pair, Sample
from .sets import BACKGROUNDS

# With --broken skip: this many unreadable pictures in a row mean that a set is not there any more.
MOST_BROKEN = 50


class Batch(NamedTuple):
    """As the workers make it, all uint8: a quarter of the floats' way to the device."""

    image: Tensor  # [B, H, W, 3] RGB
    matte: Tensor  # [B, H, W], 255 = person
    boundary: Tensor  # [B, H, W], 255 = boundary area
    weight: Tensor  # [B, H, W], 255 = the matte counts there


class Prepared(NamedTuple):
    """As the network and the losses take it, all float32 on their device."""

    image: Tensor  # [B, 3, H, W] normalised, in channels-last memory
    picture: Tensor  # [B, 3, H, W] RGB in 0..1
    matte: Tensor  # [B, 1, H, W] in 0..1
    boundary: Tensor  # [B, 1, H, W] in 0..1
    weight: Tensor  # [B, 1, H, W] in 0..1


def prepare(batch: Batch, device: str) -> Prepared:
    image, *maps = (tensor.to(device, non_blocking=True) for tensor in batch)
    picture = (image / 255).permute(0, 3, 1, 2)
    matte, boundary, weight = (plane.unsqueeze(1) / 255 for plane in maps)
    return Prepared(to_input(image), picture, matte, boundary, weight)


class Samples(IterableDataset[Batch]):
    """The batches of the iterations of ``span``.

    Args:
        sets: set name -> its pairs; among them backgrounds, where people are put before them.
        weights: set name -> how often it is drawn (any scale).
        batch: samples per iteration, of all training processes together.
        shapes: the crop of an iteration.
        span: iterations to make batches for.
        seed: of everything random here.
        augmentation: one of ``augment.AUGMENTATIONS``.
        composites, occluders, groups: how often people are put before another background, and how
            (``augment.best``).
        share: of the samples: (which training process this is, how many there are).
        skip_broken: draw again, with a line on the error stream, where a picture can't be read.

    Raises:
        UsageError: when no set is named.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[Pair]],
        weights: Mapping[str, float],
        *,
        batch: int,
        shapes: augment.Shapes,
        span: range,
        seed: int,
        augmentation: str = "best",
        composites: float = 1.0,
        occluders: float = 0.0,
        groups: float = 0.0,
        share: tuple[int, int] = (0, 1),
        skip_broken: bool = False,
    ) -> None:
        if not weights or min(weights.values()) < 0 or not sum(weights.values()):
            raise UsageError(f"--sets: needs sets with weights of 0 or more, got {dict(weights)}")
        self.sets = sets
        total = sum(weights.values())
        self.names, self.chances = list(weights), [weight / total for weight in weights.values()]
        self.batch, self.shapes, self.span, self.seed = batch, shapes, span, seed
        self.augment = functools.partial(
            augment.AUGMENTATIONS[augmentation], composites=composites, occluders=occluders, groups=groups
        )
        self.share, self.skip_broken = share, skip_broken
        self.broken: set[str] = set()

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(0)  # the processes are the parallelism
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for iteration in self.span[first::step]:
            yield self.make(iteration)

    def make(self, iteration: int) -> Batch:
        """This process's share of the batch of one iteration."""
        # numpy pads seeds with zeros: (seed, iteration) would repeat (seed, iteration, 0).
        height, width = self.shapes(np.random.default_rng((self.seed, iteration, 0)), iteration)
        rank, processes = self.share
        samples = [self.sample(iteration, i, height, width) for i in range(rank, self.batch, processes)]
        columns = (np.stack(column) for column in zip(*samples, strict=True))
        return Batch(*(torch.from_numpy(column) for column in columns))

    def sample(self, iteration: int, index: int, height: int, width: int) -> tuple[Array, ...]:
        """Image [H, W, 3], matte, boundary and weight [H, W], all uint8."""
        rng = np.random.default_rng((self.seed, iteration, index + 1))
        name = self.names[rng.choice(len(self.names), p=self.chances)]
        image, matte, weight = self.augment(name, lambda n: self.draw(n, rng), height, width, rng=rng)
        if weight is None:
            weight = np.full_like(matte, 255)
        return image, matte, targets.boundary(matte), weight

    def mattes(self) -> Iterator[Array]:
        """Those of the sets that are drawn, each picture's once; what can't be read is left to ``draw``."""
        for name in self.names:
            for pair in self.sets[name] if name != BACKGROUNDS else ():
                with contextlib.suppress(InputError):
                    yield pair.decode().matte

    def draw(self, name: str, rng: np.random.Generator) -> Sample:
        """Any picture of a set."""
        pairs = self.sets[name]
        for _ in range(MOST_BROKEN):
            try:
                return pairs[int(rng.integers(len(pairs)))].decode()
            except InputError as error:
                if not self.skip_broken:
                    raise
                if str(error) not in self.broken:
                    self.broken.add(str(error))
                    print(f"skipped: {error}", file=sys.stderr, flush=True)
        raise InputError(f"{name}: {MOST_BROKEN} pictures in a row can't be read")


def to_input(images: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 RGB -> [B, 3, H, W] float32, normalised, in channels-last memory."""
    mean, std = mean_and_std(images.device)
    return ((images - mean) / std).permute(0, 3, 1, 2)


@functools.cache
def mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """The normalisation of samples in 0..255, kept there: a GPU need not wait for it in every step."""
    mean, std = (torch.tensor(values, device=device) * 255 for values in (MEAN, STD))
    return mean, std


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

"""One training process or several under ``torchrun``: who is who, and what they must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from banet_stream.errors import UsageError


@dataclass(frozen=True)
class World:
    """The training processes. Of one alone there is no group, and nothing here waits for anyone."""

    rank: int = 0
    size: int = 1
    group: Any = None  # for small facts, on the CPU: a GPU need not stop for them

    @property
    def first(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any process says yes: all must leave the loop together, or some wait for ever."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX, self.group)
        return bool(flags.item())

    def wrap(self, model: nn.Module, device: str) -> nn.Module:
        """The model with its gradients averaged over all processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.startswith("cuda") else None)


@contextmanager
def join(device: str, batch: int) -> Iterator[tuple[World, str]]:
    """This process's place, and its device, as ``torchrun`` set them; alone without it.

    Raises:
        UsageError: when the batch can't be shared out evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(), device
        return
    if batch % size:
        raise UsageError(f"--batch: must be a multiple of the {size} processes, got {batch}")
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        group = dist.new_group(backend="gloo")
        yield World(dist.get_rank(), size, group), device
    finally:
        dist.destroy_process_group()

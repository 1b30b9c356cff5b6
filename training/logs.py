"""A run's record: log.jsonl always, TensorBoard's curves and pictures on request."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from banet_stream.errors import OutputError, UsageError

from .data import Batch


class Log:
    """Writes to ``out``; a silent one (of the other processes of a run) writes nothing.

    Args:
        out: the run's folder.
        iteration: where the run stands: what a killed one wrote after it is forgotten.
        tensorboard: write to ``out``/tensorboard too.
        silent: write nothing.

    Raises:
        UsageError: when TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, iteration: int, *, tensorboard: bool = False, silent: bool = False) -> None:
        self.path, self.silent = out / "log.jsonl", silent
        self.board: Any = None
        if silent:
            return
        if tensorboard:
            if importlib.util.find_spec("tensorboard") is None:
                raise UsageError("--tensorboard: is not installed; pip install tensorboard, or go without")
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)

            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=iteration + 1)
        forget_after(self.path, iteration)

    def write(self, iteration: int, **values: float) -> None:
        """One line, on the screen too.

        Raises:
            OutputError: when the file can't be written.
        """
        if self.silent:
            return
        line = json.dumps({"iteration": iteration} | {name: round(v, 5) for name, v in values.items()})
        print(line, flush=True)
        try:
            with self.path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written ({error})") from error
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)

    def picture(self, iteration: int, name: str, rgb: NDArray[np.uint8]) -> None:
        """[H, W, 3], for TensorBoard alone."""
        if self.board:
            self.board.add_image(name, rgb, iteration, dataformats="HWC")

    def close(self) -> None:
        if self.board:
            self.board.close()


class Means:
    """What went on since last asked: the losses' means, iterations per minute, and the share of the time
    that went by waiting for data."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count, self.waited, self.since = 0, 0.0, time.monotonic()

    def timed(self, batches: Iterator[Batch]) -> Batch | None:
        began = time.monotonic()
        batch = next(batches, None)
        self.waited += time.monotonic() - began
        return batch

    def add(self, terms: dict[str, Tensor]) -> None:
        self.sums = {name: self.sums.get(name, 0) + value for name, value in terms.items()}
        self.count += 1

    def take(self) -> dict[str, float]:
        means = {name: value.item() / self.count for name, value in self.sums.items()}
        elapsed = max(1e-9, time.monotonic() - self.since)
        means |= {"waiting": self.waited / elapsed, "per_minute": 60 * self.count / elapsed}
        self.sums, self.count, self.waited, self.since = {}, 0, 0.0, time.monotonic()
        return means


def forget_after(path: Path, iteration: int) -> None:
    """Drops the lines of a log that a killed run wrote after its last checkpoint: they will come again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["iteration"] <= iteration:
                kept.append(line + "\n")
        except ValueError:  # the line the kill cut off
            continue
    path.write_text("".join(kept))

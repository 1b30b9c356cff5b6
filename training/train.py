"""Trains BANet. The same command started again goes on where it stopped.

python -m training.train --data ../shared/data --out runs/banet64
python -m training.train --data ../shared/data --out runs/try --iterations 200 --limit-minutes 5
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from banet_stream.engines import choose_device
from banet_stream.errors import BanetStreamError, Interrupted, OutputError, UsageError
from banet_stream.network import TEMPERATURE

from . import augment, checkpoint, data, evaluate, losses


@dataclass
class Config:
    data: str = "../shared/data"  # folder of the tars
    out: str = "runs/banet64"  # checkpoint.pt and log.jsonl go here
    init: str = ""  # start from the weights of this checkpoint.pt, .safetensors or shipped model
    channels: int = 64  # 64 or 512
    detail_stride: int = 2  # where detail branch and fusion run
    temperature: float = TEMPERATURE  # T of eq. (2)
    iterations: int = 8000
    limit_minutes: float = 0.0  # save, evaluate and stop after this long; 0: no limit
    batch: int = 8
    size_start: int = 192  # crops have size^2 pixels, growing from start to end
    size_end: int = 320
    max_rate: float = 2e-3  # AdamW, one cycle: cosine up in the warm-up, cosine down to nothing
    warm_up: float = 0.1  # share of the iterations
    weight_decay: float = 1e-2
    ema_decay: float = 0.999  # the averaged weights are the ones evaluated and shipped
    device: str = "cpu"
    workers: int = 1  # processes that prepare samples
    seed: int = 1
    log_every: int = 50
    save_every: int = 250
    evaluate_every: int = 1000
    sets: dict[str, float] = field(
        default_factory=lambda: {
            "portraits-train": 0.42,
            "video-frames": 0.16,
            "fashion-train": 0.12,
            "fashion-soft": 0.08,
            "people-train": 0.08,
            "studio-train": 0.08,
            "backgrounds": 0.06,
        }
    )


# Gradients longer than this are shortened to it.
LARGEST_GRADIENT = 1.0


class Run:
    """Everything that changes while training, and its checkpoint."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = Path(config.out) / "checkpoint.pt"
        self.iteration = 0  # done so far
        self.ancestors: list[dict[str, Any]] = []
        torch.manual_seed(config.seed)  # the initial weights: nothing later draws from torch's generator
        saved = checkpoint.load(self.path, config.device) if self.path.exists() else None
        if saved:
            checkpoint.refuse_other_config(self.path, saved["config"], dataclasses.asdict(config))

        model: nn.Module = checkpoint.build_network(dataclasses.asdict(config))
        if config.init and not saved:
            model.load_state_dict(initial_weights(config))
            self.ancestors = checkpoint.ancestors(config.init)
        self.model = model.to(config.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.model).eval()
        self.optimiser = torch.optim.AdamW(decay_groups(self.model, config.weight_decay), lr=config.max_rate)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, config.max_rate, total_steps=config.iterations, pct_start=config.warm_up
        )
        if saved:
            for name, part in self.parts().items():
                part.load_state_dict(saved[name])
            self.iteration, self.ancestors = saved["iteration"], checkpoint.lineage(saved)

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "ema": self.ema,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }

    def save(self) -> None:
        states = {name: part.state_dict() for name, part in self.parts().items()}
        facts = {"iteration": self.iteration, "config": dataclasses.asdict(self.config)}
        checkpoint.save(self.path, facts | states | {"ancestors": self.ancestors})

    def step(self, batch: data.Batch) -> dict[str, Tensor]:
        """One iteration; returns the losses, still on the device."""
        image, matte, boundary = (tensor.to(self.config.device, non_blocking=True) for tensor in batch)
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            output = self.model(image)
        loss, terms = losses.total(output, matte, boundary)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        length = nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        if not bool(length.isfinite()):  # before they reach the weights, and with them the checkpoint
            raise BanetStreamError(
                f"iteration {self.iteration + 1}: the gradients are no numbers any more; try a smaller "
                f"--max-rate. {self.path} still holds the last good state"
            )
        self.optimiser.step()
        self.schedule.step()
        self.iteration += 1
        # A young average follows closely, or it would drag the untrained weights along.
        update_ema(self.ema, self.model, min(self.config.ema_decay, self.iteration / (self.iteration + 10)))
        return terms


def train(config: Config) -> None:
    """Trains to the end, the time limit or Ctrl-C.

    Raises:
        BanetStreamError: one of its kinds, when something is wrong with options, data or files.
    """
    check(config)
    config = dataclasses.replace(config, device=str(choose_device(config.device)))
    run = Run(config)
    samples, validation = open_data(config, range(run.iteration, config.iterations))
    make_folder(Path(config.out))
    forget_after(Path(config.out) / "log.jsonl", run.iteration)
    if run.iteration >= config.iterations:
        print(f"finished already: {run.path} is at iteration {run.iteration} of {config.iterations}")
        return
    print(f"{'resumed' if run.iteration else 'starting'} at iteration {run.iteration}", flush=True)
    run.model.train()
    batches = data.batches(samples, workers=config.workers, pin_memory=config.device.startswith("cuda"))
    with stop_requests() as stop:
        loop(run, batches, validation, stop)
    print(f"at iteration {run.iteration} of {config.iterations}: {run.path}")


def loop(run: Run, batches: Iterator[data.Batch], validation: list[data.Pair], stop: list[int]) -> None:
    """Steps, logs, saves and evaluates until the batches, the minutes or somebody's patience end."""
    config, out = run.config, Path(run.config.out)
    started = time.monotonic()
    sums: dict[str, Tensor] = {}
    summed = 0
    for batch in batches:
        terms = run.step(batch)
        sums = {name: sums.get(name, 0) + value for name, value in terms.items()}
        summed += 1
        seconds = time.monotonic() - started
        last = run.iteration == config.iterations or 0 < config.limit_minutes < seconds / 60
        if run.iteration % config.log_every == 0:
            means = {name: value.item() / summed for name, value in sums.items()}
            sums, summed = {}, 0
            rate = float(run.schedule.get_last_lr()[0])
            log(out, iteration=run.iteration, rate=rate, seconds=seconds, **means)
        if run.iteration % config.save_every == 0 or last or stop:
            run.save()
        if stop:
            raise Interrupted(f"stopped at iteration {run.iteration}; the same command goes on from there")
        if run.iteration % config.evaluate_every == 0 or last:
            log(out, iteration=run.iteration, **evaluate.miou(run.ema, validation, config.device))
        if last:
            return


def open_data(config: Config, span: range) -> tuple[data.Samples, list[data.Pair]]:
    """What the run learns from and what it is measured on.

    Raises:
        InputError: naming the file that is missing or wrong.
    """
    root = Path(config.data)
    shapes = augment.Shapes(config.size_start, config.size_end, config.iterations)
    samples = data.Samples(root, config.sets, batch=config.batch, shapes=shapes, span=span, seed=config.seed)
    return samples, data.read_tar(root / evaluate.VALIDATION)


def initial_weights(config: Config) -> dict[str, Tensor]:
    """The weights ``--init`` names, for the network that the other options describe."""
    found = checkpoint.network(config.init)
    # The stride and T may change between runs; the channels are the network.
    if found.channels != config.channels:
        raise UsageError(f"--init {config.init}: has {found.channels} channels, --channels {config.channels}")
    return found.state_dict()


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolution kernels only: batch norm's scales and all biases go without."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Averages weights and batch norms' running statistics; counters are copied."""
    for average, current in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if average.is_floating_point():
            average.lerp_(current, 1 - decay)
        else:
            average.copy_(current)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that no iteration is cut in two; a second one is not held back."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        del frame
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log(out: Path, **values: float) -> None:
    line = json.dumps({name: round(value, 5) for name, value in values.items()})
    print(line, flush=True)
    try:
        with (out / "log.jsonl").open("a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise OutputError(f"{out / 'log.jsonl'}: can't be written ({error})") from error


def forget_after(path: Path, iteration: int) -> None:
    """Drops the lines of a log that a killed run wrote after its last checkpoint: they will come again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["iteration"] <= iteration:
                kept.append(line + "\n")
        except ValueError:  # the line the kill cut off
            continue
    path.write_text("".join(kept))


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {out}: can't be made ({error})") from error


def check(config: Config) -> None:
    """Refuses what can't be meant, before anything is read.

    Raises:
        UsageError, DeviceError: naming the option and its rule.
    """
    for name in ("iterations", "batch", "log_every", "save_every", "evaluate_every"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name}: must be 1 or more, got {getattr(config, name)}")
    for name in ("limit_minutes", "workers", "seed", "weight_decay"):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name}: must be 0 or more, got {getattr(config, name)}")
    for name in ("warm_up", "ema_decay"):
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"--{name}: must be at least 0 and below 1, got {getattr(config, name)}")
    if not augment.SMALLEST_SIDE <= config.size_start <= config.size_end:
        raise UsageError(
            f"--size_start, --size_end: must be {augment.SMALLEST_SIDE} or more and in this order, "
            f"got {config.size_start}, {config.size_end}"
        )
    if not config.max_rate > 0:
        raise UsageError(f"--max_rate: must be above 0, got {config.max_rate}")
    try:
        checkpoint.build_network(dataclasses.asdict(config))
    except ValueError as error:
        raise UsageError(f"--channels, --detail_stride, --temperature: {error}") from error
    choose_device(config.device)


def parse(arguments: Sequence[str] | None) -> Config:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for f in dataclasses.fields(Config):
        if f.name != "sets":
            names = dict.fromkeys((f"--{f.name}", f"--{f.name.replace('_', '-')}"))
            parser.add_argument(
                *names, type=type(f.default), default=f.default, help=f"default: {f.default!r}"
            )
    parser.add_argument("--sets", type=set_weights, help='JSON, e.g. {"portraits-train": 1.0}')
    values = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return Config(**values)


def set_weights(text: str) -> dict[str, float]:
    try:
        return {str(name): float(weight) for name, weight in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(
            f'must be JSON like {{"portraits-train": 1.0}}, got {text}'
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    try:
        train(parse(arguments))
    except BanetStreamError as error:
        print(f"training.train: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before the first iteration, or the second Ctrl-C
        print("training.train: interrupted; the last checkpoint is as it was", file=sys.stderr)
        sys.exit(Interrupted.exit_code)


if __name__ == "__main__":
    main()

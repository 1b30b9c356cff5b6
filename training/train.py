"""Trains BANet. The same command started again goes on where it stopped.

python -m training.train --data ../shared/data --out runs/banet64
python -m training.train --data ../shared/data --out runs/try --iterations 200 --limit-minutes 5
torchrun --nproc-per-node 4 -m training.train --device cuda --batch 64 --out runs/four
"""

from __future__ import annotations

import copy
import dataclasses
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from banet_stream.engines import choose_device, choose_precision
from banet_stream.errors import BanetStreamError, Interrupted, OutputError, UsageError

from . import augment, checkpoint, data, distributed, evaluate, losses, networks, sets
from . import config as configuration
from .baselines.pfcn import PFCN
from .command import command
from .config import Config, check
from .distributed import World
from .logs import Log, Means
from .muon import Muon
from .pairs import Pair
from .widen import adopt

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Where float16's gradients overflow, their scale is halved and the step left out; below this it is no use.
SMALLEST_SCALE = 2.0**-10
SAMPLES_SHOWN = 6


class Run:
    """Everything that changes while training, and its checkpoint."""

    def __init__(self, config: Config, world: World | None = None) -> None:
        config = dataclasses.replace(config, precision=autocast_precision(config.precision, config.device))
        self.config, self.world = config, world or World()
        self.path = Path(config.out) / "checkpoint.pt"
        self.iteration = 0  # done so far
        self.ancestors: list[dict[str, Any]] = []
        torch.manual_seed(config.seed)  # the initial weights
        saved = checkpoint.load(self.path, config.device) if self.path.exists() else None
        if saved:
            checkpoint.refuse_other_config(self.path, saved["config"], dataclasses.asdict(config))

        model = networks.build(dataclasses.asdict(config))
        if config.init and not saved:
            load_initial_weights(model, config)
            self.ancestors = checkpoint.ancestors(config.init)
        self.model = model.to(config.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.model).eval()
        self.optimiser = build_optimiser(self.model, config)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            config.max_rate,
            total_steps=config.iterations,
            # A warm-up of one iteration is none, and divides OneCycleLR by zero.
            pct_start=config.warm_up if config.warm_up * config.iterations > 1 else 0.0,
            cycle_momentum=config.optimiser != "sgd",
        )
        self.device_type = torch.device(config.device).type
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=config.precision == "float16")
        if saved:
            for name, part in self.parts().items():
                if name in saved:  # another precision may have been used before: no scale then
                    part.load_state_dict(saved[name])
            self.iteration, self.ancestors = saved["iteration"], checkpoint.lineage(saved)
        self.forward: Any = self.world.wrap(self.model, config.device)
        if config.compile:
            self.forward = torch.compile(self.forward, backend=config.compile)

    def parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "model": self.model,
            "ema": self.ema,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }
        return parts | ({"scaler": self.scaler} if self.scaler.is_enabled() else {})

    def save(self) -> None:
        if not self.world.first:
            return
        states = {name: part.state_dict() for name, part in self.parts().items()}
        facts = {"iteration": self.iteration, "config": dataclasses.asdict(self.config)}
        checkpoint.save(self.path, facts | states | {"ancestors": self.ancestors})

    def step(self, batch: data.Batch) -> dict[str, Tensor]:
        """One iteration; returns the losses, still on the device."""
        c = self.config
        # Dropout (baselines have it) depends on nothing that a stop could lose.
        torch.manual_seed((c.seed * self.world.size + self.world.rank) * 2**32 + self.iteration)
        prepared = data.prepare(batch, c.device)
        enabled = c.precision != "float32"
        with torch.autocast(self.device_type, dtype=PRECISIONS[c.precision], enabled=enabled):
            output = self.forward(prepared.image)
        loss, terms = losses.total(
            output, prepared, refine_weight=c.refine_weight, overlap_weight=c.overlap_weight
        )
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimiser)
        length = nn.utils.clip_grad_norm_(self.model.parameters(), c.largest_gradient or float("inf"))
        self.refuse_divergence(loss, length)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # or the step was left out
            self.schedule.step()
        self.iteration += 1
        # A young average follows closely, or it would drag the untrained weights along.
        update_ema(self.ema, self.model, min(c.ema_decay, self.iteration / (self.iteration + 10)))
        return terms

    def refuse_divergence(self, loss: Tensor, length: Tensor) -> None:
        """Before it reaches the weights, and with them the checkpoint."""
        found = loss.detach() if self.scaler.is_enabled() else length  # the scaler leaves such steps out
        if not bool(found.isfinite()) or 0 < self.scaler.get_scale() < SMALLEST_SCALE:
            raise BanetStreamError(
                f"iteration {self.iteration + 1}: the gradients are no numbers any more; try a smaller "
                f"--max-rate or another --precision. {self.path} still holds the last good state"
            )


def train(config: Config) -> None:
    """Trains to the end, the time limit or Ctrl-C.

    Raises:
        BanetStreamError: one of its kinds, when something is wrong with options, data or files.
    """
    check(config)
    with distributed.join(str(choose_device(config.device)), config.batch) as (world, device):
        train_in(world, dataclasses.replace(config, device=device))


def train_in(world: World, config: Config) -> None:
    """One process's part."""
    run = Run(config, world)
    samples, validation = open_data(config, range(run.iteration, config.iterations), world)
    if world.first:
        make_folder(Path(config.out))
    if run.iteration >= config.iterations:
        say(world, f"finished already: {run.path} is at iteration {run.iteration} of {config.iterations}")
        return
    log = Log(Path(config.out), run.iteration, tensorboard=config.tensorboard, silent=not world.first)
    say(world, f"{'resumed' if run.iteration else 'starting'} at iteration {run.iteration}")
    if run.iteration == 0:
        learn_shape((run.model, run.ema), samples)
    torch.backends.cudnn.benchmark = True  # crops come in few shapes
    run.model.train()
    batches = data.batches(samples, workers=config.workers, pin_memory=config.device.startswith("cuda"))
    try:
        with stop_requests() as stop:
            loop(run, batches, validation, stop, log)
    finally:
        log.close()
    say(world, f"at iteration {run.iteration} of {config.iterations}: {run.path}")


def loop(run: Run, batches: Iterator[data.Batch], validation: list[Pair], stop: list[int], log: Log) -> None:
    """Steps, logs, saves and evaluates until the batches, the minutes or somebody's patience end."""
    config, world = run.config, run.world
    started = time.monotonic()
    means = Means()
    while (batch := means.timed(batches)) is not None:
        means.add(run.step(batch))
        seconds = time.monotonic() - started
        last = run.iteration == config.iterations or 0 < config.limit_minutes < seconds / 60
        last, stopped = world.any(last), world.any(bool(stop))
        if run.iteration % config.log_every == 0:
            rate = float(run.schedule.get_last_lr()[0])
            log.write(run.iteration, rate=rate, seconds=seconds, **means.take())
        if run.iteration % config.save_every == 0 or last or stopped:
            run.save()
        if stopped:
            raise Interrupted(f"stopped at iteration {run.iteration}; the same command goes on from there")
        every = config.evaluate_every
        if world.first and every and (run.iteration % every == 0 or last):
            report(run, validation, log)
        if last:
            return


def report(run: Run, validation: list[Pair], log: Log) -> None:
    """The averaged weights' accuracy, and how some pictures look with them."""
    predict = evaluate.of_module(run.ema, run.config.device)
    scores, total = evaluate.score(predict, validation, quick=True)
    per_picture = sum(s.miou for s in scores) / len(scores)
    log.write(run.iteration, miou=total, miou_per_picture=per_picture)
    if log.board:
        shown = evaluate.contact_sheet(predict, validation, scores[:SAMPLES_SHOWN])
        log.picture(run.iteration, "validation", shown)


def open_data(config: Config, span: range, world: World) -> tuple[data.Samples, list[Pair]]:
    """What the run learns from and what it is measured on.

    Raises:
        InputError: naming the file that is missing or wrong.
    """
    root = Path(config.data)
    shapes = augment.Shapes(config.size_start, config.size_end, config.iterations, config.augmentation)
    names = list(config.sets)
    if config.augmentation == "best" and any(augment.composite_chance(name) for name in names):
        names.append(sets.BACKGROUNDS)
    paths = sets.locate(root, dict.fromkeys((*names, config.validation)))
    skip = config.broken == "skip"
    samples = data.Samples(
        {name: sets.read(paths[name], skip_broken=skip) for name in dict.fromkeys(names)},
        config.sets,
        batch=config.batch,
        shapes=shapes,
        span=span,
        seed=config.seed,
        augmentation=config.augmentation,
        composites=config.composites,
        occluders=config.occluders,
        groups=config.groups,
        share=(world.rank, world.size),
        skip_broken=skip,
    )
    return samples, sets.read(paths[config.validation])


def autocast_precision(wanted: str, device: str) -> str:
    """``auto``: bfloat16, but on a device that only emulates it, many times slower, what it has."""
    where = choose_device(device)
    if wanted != "auto":
        return wanted
    if where.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return choose_precision("auto", where)


def learn_shape(models: Sequence[nn.Module], samples: data.Samples) -> None:
    """PFCN+ is told the mean mask of what it trains on."""
    for model in models:
        if isinstance(model, PFCN):
            model.learn_shape(samples.mattes())


def load_initial_weights(model: nn.Module, config: Config) -> None:
    """The weights ``--init`` names, into the network that the other options describe, which may be larger.

    Raises:
        UsageError: when they belong to another one. (The stride and T may change between runs.)
    """
    learnt = checkpoint.network(config.init)
    try:
        adopt(learnt, model)
    except RuntimeError as error:
        wanted = f"--network {config.network} --channels {config.channels} --context {config.context}"
        raise UsageError(f"--init {config.init}: holds another network than {wanted}") from error


def build_optimiser(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    groups = decay_groups(model, config.weight_decay, everything=config.decay == "all")
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.max_rate, momentum=config.momentum)
    if config.optimiser == "muon":
        return Muon(groups, config.max_rate)
    return torch.optim.AdamW(groups, lr=config.max_rate)


def decay_groups(model: nn.Module, weight_decay: float, *, everything: bool = False) -> list[dict[str, Any]]:
    """Weight decay for convolution kernels only (batch norms' scales, biases: without), or for all."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    spared = weight_decay if everything else 0.0
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": spared}]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Averages weights and batch norms' running statistics; counters are copied."""
    pairs = list(zip(ema.state_dict().values(), model.state_dict().values(), strict=True))
    averages, current = zip(*((a, c) for a, c in pairs if a.is_floating_point()), strict=True)
    torch._foreach_lerp_(averages, current, 1 - decay)  # one launch on a GPU, not four hundred
    for counter, value in ((a, c) for a, c in pairs if not a.is_floating_point()):
        counter.copy_(value)


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


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {out}: can't be made ({error})") from error


def say(world: World, line: str) -> None:
    if world.first:
        print(line, flush=True)


def parse(arguments: Sequence[str] | None) -> Config:
    return configuration.parse(arguments, prog="python -m training.train", description=__doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    # Interrupted before the first iteration, or by the second Ctrl-C.
    with command("train", "interrupted; the last checkpoint is as it was"):
        train(parse(arguments))


if __name__ == "__main__":
    main()

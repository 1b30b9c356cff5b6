"""Trains BANet. The same command started again goes on where it stopped.

python -m training.train --data ../shared/data --out runs/banet64
python -m training.train --data ../shared/data --out runs/try --iterations 200 --limit_minutes 5
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from banet_stream.network import TEMPERATURE, BANet

from . import augment, data, evaluate, losses


@dataclass
class Config:
    data: str = "../shared/data"  # folder of the tars
    out: str = "runs/banet64"  # checkpoint.pt and log.jsonl go here
    init: str = ""  # start from the weights of this checkpoint
    channels: int = 64  # 64 or 512
    detail_stride: int = 2  # where detail branch and fusion run
    temperature: float = TEMPERATURE  # T of eq. (2)
    iterations: int = 8000
    limit_minutes: float = 0.0  # save and stop after this long; 0: no limit
    batch: int = 8
    size_start: int = 192  # crops have size^2 pixels, growing from start to end
    size_end: int = 320
    max_rate: float = 2e-3  # AdamW, one cycle with a linear warm-up
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


def main() -> None:
    config = parse()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    torch.manual_seed(config.seed)

    model = BANet(config.channels, detail_stride=config.detail_stride, temperature=config.temperature)
    model.to(config.device, memory_format=torch.channels_last)
    if config.init:
        model.load_state_dict(torch.load(config.init, map_location=config.device, weights_only=True)["ema"])
    ema = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.max_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.max_rate, total_steps=config.iterations, pct_start=config.warm_up
    )

    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=config.device, weights_only=True)
        for name, part in parts(model, ema, optimiser, schedule).items():
            part.load_state_dict(state[name])
        first = state["iteration"]
        print(f"resumed at iteration {first}", flush=True)

    shapes = augment.Shapes(config.size_start, config.size_end, config.iterations)
    span = range(first, config.iterations)
    samples = data.Samples(Path(config.data), config.sets, config.batch, shapes, span, config.seed)
    validation = data.read_tar(Path(config.data) / "portraits-val.tar")

    started = time.monotonic()
    sums: dict[str, float] = {}
    model.train()
    for iteration, batch in enumerate(data.loader(samples, config.workers), first + 1):
        image, matte, boundary = (tensor.to(config.device, non_blocking=True) for tensor in batch)
        with torch.autocast(config.device.split(":")[0], dtype=torch.bfloat16):
            output = model(image)
        loss, terms = losses.total(output, matte, boundary)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        update_ema(ema, model, min(config.ema_decay, iteration / (iteration + 10)))

        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        seconds = time.monotonic() - started
        stop = iteration == config.iterations or (
            config.limit_minutes and seconds > 60 * config.limit_minutes
        )
        if iteration % config.log_every == 0:
            means = {name: value / config.log_every for name, value in sums.items()}
            sums = {}
            log(out, iteration=iteration, rate=schedule.get_last_lr()[0], seconds=seconds, **means)
        if iteration % config.evaluate_every == 0 or stop:
            log(out, iteration=iteration, **evaluate.miou(ema, validation, config.device))
        if iteration % config.save_every == 0 or stop:
            states = {n: p.state_dict() for n, p in parts(model, ema, optimiser, schedule).items()}
            save(checkpoint, {"iteration": iteration, "config": dataclasses.asdict(config), **states})
        if stop:
            break


def parts(model: nn.Module, ema: nn.Module, optimiser: Any, schedule: Any) -> dict[str, Any]:
    """What a checkpoint holds besides iteration (which is the data cursor too) and configuration."""
    return {"model": model, "ema": ema, "optimiser": optimiser, "schedule": schedule}


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolution kernels only: batch norm's scales and all biases go without."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for average, current in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if average.is_floating_point():
            average.lerp_(current, 1 - decay)
        else:
            average.copy_(current)


def save(path: Path, state: dict[str, Any]) -> None:
    """Whole or not at all, so that a kill leaves the last good checkpoint."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def log(out: Path, **values: float) -> None:
    line = json.dumps({k: round(v, 5) for k, v in values.items()})
    print(line, flush=True)
    with (out / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def parse() -> Config:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for f in dataclasses.fields(Config):
        if f.name != "sets":
            parser.add_argument(f"--{f.name}", type=type(f.default), default=f.default)
    parser.add_argument("--sets", type=json.loads, help='JSON, e.g. {"portraits-train": 1.0}')
    values = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    return Config(**values)


if __name__ == "__main__":
    main()

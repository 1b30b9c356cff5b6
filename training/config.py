"""A run's configuration: one dataclass, saved in every checkpoint; presets are starting values of it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from banet_stream.engines import choose_device
from banet_stream.errors import UsageError
from banet_stream.network import TEMPERATURE

from . import augment, networks


@dataclass
class Config:
    preset: str = "best"  # whose values these were before other options changed some
    data: str = "../shared/data"  # folder of the sets
    out: str = "runs/banet64"  # checkpoint.pt and log.jsonl go here
    init: str = ""  # start from the weights of this checkpoint.pt, .safetensors or shipped model
    network: str = "banet"  # or one of the baselines
    channels: int = 64  # 64 or 512: banet's
    detail_stride: int = 2  # where detail branch and fusion run
    temperature: float = TEMPERATURE  # T of eq. (2)
    context: int = 0  # blocks with large kernels at 1/32, and as many at 1/16; not the paper's
    iterations: int = 8000
    limit_minutes: float = 0.0  # save, evaluate and stop after this long; 0: no limit
    batch: int = 8  # of all processes together
    augmentation: str = "best"  # or paper: rotation, flip, lightness
    composites: float = 1.0  # makes the chance to be put before another background so many times as large
    occluders: float = 0.0  # the same of tables before people, and of patterns on them
    groups: float = 0.0  # share of those put before another background who are one of a group
    size_start: int = 192  # crops have size^2 pixels, growing from start to end
    size_end: int = 320
    refine_weight: float = 0.0  # gamma of eq. (8): 0.1 in the paper's second stage
    overlap_weight: float = 0.0  # of what the matte lacks in intersection over union; not the paper's
    optimiser: str = "adamw"  # or muon, or sgd, with its momentum held still
    momentum: float = 0.9  # sgd's
    max_rate: float = 2e-3  # cosine up in the warm-up, cosine down to nothing
    warm_up: float = 0.1  # share of the iterations; 0: the largest rate at once
    weight_decay: float = 1e-2
    decay: str = "kernels"  # or all: biases and batch norms' scales too
    largest_gradient: float = 1.0  # longer ones are shortened to it; 0: never
    ema_decay: float = 0.999  # the averaged weights are the ones evaluated and shipped; 0: the last ones
    device: str = "cpu"
    precision: str = "auto"  # of autocast: bfloat16 where the device has it; float16, with scaled gradients
    compile: str = ""  # torch.compile's backend, such as inductor; empty: not compiled
    workers: int = 1  # processes that prepare samples, beside each process that trains
    seed: int = 1
    broken: str = "refuse"  # a picture or matte that can't be read; or skip, with a line that names it
    log_every: int = 50
    save_every: int = 250
    evaluate_every: int = 1000  # and at the end; 0: never
    validation: str = "portraits-val"  # the set that is measured and never trained on
    tensorboard: bool = False  # curves and sample pictures too, in OUT/tensorboard
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


# The paper's section 4 and table 1. Its Supervisely Person and PFCN+ are not to be had here: the sets are
# their stand-ins (README, "The paper's recipe").
PAPER: dict[str, Any] = {
    "iterations": 40_000,
    "batch": 16,
    "augmentation": "paper",
    "size_start": 512,
    "size_end": 512,
    "optimiser": "sgd",
    "max_rate": 0.1,
    "warm_up": 0.0,
    "weight_decay": 1e-4,
    "decay": "all",
    "largest_gradient": 0.0,
    "ema_decay": 0.0,
    "out": "runs/paper",
    "sets": {"fashion-train": 1.0},
}
PRESETS: dict[str, dict[str, Any]] = {
    "best": {"optimiser": "muon", "occluders": 1.0, "detail_stride": 4, "context": 2},
    "paper": PAPER,
    "paper-refine": PAPER
    | {
        "refine_weight": 0.1,
        "warm_up": 0.1,  # Fig. 6 shows one and gives no number
        "init": "runs/paper/checkpoint.pt",
        "out": "runs/paper-refine",
        "sets": {"portraits-train": 1.0},
    },
}

PRECISIONS = ("auto", "bfloat16", "float16", "float32")
CHOICES = {
    "preset": tuple(PRESETS),
    "network": networks.NAMES,
    "augmentation": tuple(augment.AUGMENTATIONS),
    "optimiser": ("adamw", "muon", "sgd"),
    "decay": ("kernels", "all"),
    "precision": PRECISIONS,
    "broken": ("refuse", "skip"),
}


def check(config: Config) -> None:
    """Refuses what can't be meant, before anything is read.

    Raises:
        UsageError, DeviceError: naming the option and its rule.
    """
    for name, allowed in CHOICES.items():
        if getattr(config, name) not in allowed:
            raise UsageError(f"--{name}: must be {' or '.join(allowed)}, got {getattr(config, name)}")
    for name in ("iterations", "batch", "log_every", "save_every"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name}: must be 1 or more, got {getattr(config, name)}")
    for name in (
        "limit_minutes",
        "workers",
        "seed",
        "weight_decay",
        "refine_weight",
        "overlap_weight",
        "largest_gradient",
        "composites",
        "occluders",
        "groups",
        "evaluate_every",
    ):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name}: must be 0 or more, got {getattr(config, name)}")
    for name in ("warm_up", "ema_decay", "momentum"):
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
        networks.check(dataclasses.asdict(config))
    except ValueError as error:
        raise UsageError(f"--channels, --detail_stride, --temperature, --context: {error}") from error
    check_compiler(config.compile)
    choose_device(config.device)


def check_compiler(backend: str) -> None:
    if not backend:
        return
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise UsageError(f"--compile: must be one of {', '.join(known)}, got {backend}")


def parse(arguments: Sequence[str] | None, *, prog: str, description: str | None) -> Config:
    """The configuration of a command line: the preset's values, and over them the options given."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for f in dataclasses.fields(Config):
        if f.name == "sets":
            continue
        names = dict.fromkeys((f"--{f.name}", f"--{f.name.replace('_', '-')}"))
        if isinstance(f.default, bool):
            parser.add_argument(*names, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(
                *names,
                type=type(f.default),
                choices=CHOICES.get(f.name),
                help=f"default: {PRESETS['best'].get(f.name, f.default)!r}",
            )
    parser.add_argument("--sets", type=set_weights, help='JSON, e.g. {"portraits-train": 1.0}')
    values = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return Config(**(PRESETS[values.get("preset", "best")] | values))


def set_weights(text: str) -> dict[str, float]:
    try:
        return {str(name): float(weight) for name, weight in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(
            f'must be JSON like {{"portraits-train": 1.0}}, got {text}'
        ) from error

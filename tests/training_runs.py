"""What tests of training runs share: a tiny configuration, and ways to compare checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from training_sets import TRAINED

from training import checkpoint, train

REPOSITORY = Path(__file__).parent.parent
REAL_VALIDATION = REPOSITORY.parent / "shared" / "data" / "portraits-val.tar"
FORKED = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the loader's way on Linux
TIMES = ("seconds", "waiting", "per_minute")


def configure(root, out, **changes):
    small = {
        "data": str(root),
        "out": str(out),
        "iterations": 8,
        "batch": 2,
        "size_start": 64,
        "size_end": 64,
        "workers": 0,
        "log_every": 2,
        "save_every": 3,
        "evaluate_every": 1000,
        "sets": TRAINED,
    }
    return train.Config(**small | changes)


def options(config):
    """The command line of a configuration."""
    words = []
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), f.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words.append(f"--{name}={json.dumps(value) if f.name == 'sets' else value}")
    return words


def flatten(value, name=""):
    """Every leaf of a checkpoint by its path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flatten(part, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, part in enumerate(value) for k, v in flatten(part, f"{name}/{i}").items()}
    return {name: value}


def assert_same_state(a, b):
    """Two checkpoints hold the same training, to the bit."""
    names = ("iteration", "model", "ema", "optimiser", "schedule", "ancestors")
    a, b = (flatten({n: checkpoint.load(path)[n] for n in names}) for path in (a, b))
    assert a.keys() == b.keys()
    differing = [
        n for n in a if not (torch.equal(a[n], b[n]) if isinstance(a[n], torch.Tensor) else a[n] == b[n])
    ]
    assert not differing


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]

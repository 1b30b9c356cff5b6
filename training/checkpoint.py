"""Checkpoints: written whole, read without executing anything, checked before anything is built on them.

iteration   iterations done, which is also the data cursor
config      the Config of the run
model, ema, optimiser, schedule     state dicts; ema is what is evaluated and shipped
scaler      (float16 only) the gradients' scale
ancestors   (where --init was used) runs whose weights this one started from
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from banet_stream.engines import WEIGHTS, load_network
from banet_stream.errors import OutputError, UsageError, WeightsError, first_line

from . import networks
from .config import Config

State = dict[str, Any]
REQUIRED = ("iteration", "config", "model", "ema", "optimiser", "schedule")
# What may change between two starts of one run: where things are and how often it reports.
FREE_FIELDS = frozenset(
    (
        *("preset", "data", "out", "limit_minutes", "device", "precision", "compile", "workers", "broken"),
        *("log_every", "save_every", "evaluate_every", "validation", "tensorboard"),
    )
)


def save(path: Path, state: State) -> None:
    """Whole or not at all, so that a kill leaves the last good checkpoint.

    Raises:
        OutputError: when it can't be written.
    """
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name on missing content
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: the checkpoint can't be written ({error})") from error


def load(path: Path, device: str = "cpu") -> State:
    """A checkpoint that ``training.train`` wrote. Fields of its configuration that came later have their
    defaults, which are what was done before.

    Raises:
        WeightsError: when there is none, or the file is damaged or something else.
    """
    if path.is_file() and not zipfile.is_zipfile(path):  # torch.load meets such files with any exception
        raise WeightsError(f"{path}: can't be read as a checkpoint (damaged, or something else)")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: can't be read as a checkpoint ({first_line(error)})") from error
    missing = [key for key in REQUIRED if not isinstance(state, dict) or key not in state]
    if missing:
        raise WeightsError(f"{path}: is no checkpoint of training.train (no {', '.join(missing)})")
    return dict(state) | {"config": dataclasses.asdict(Config()) | state["config"]}


def refuse_other_config(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """A run goes on only as it began.

    Raises:
        UsageError: naming every field that differs.
    """
    names = sorted((old.keys() | new.keys()) - FREE_FIELDS)
    changed = [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise UsageError(
            f"{path} belongs to another run: {'; '.join(changed)}. Give the same options to go on with it, "
            f"or another --out (with --init {path} to start from its weights)"
        )


def network(model: str | Path) -> nn.Module:
    """The network of a shipped name, a .safetensors file, or a checkpoint.pt (its averaged weights).

    Raises:
        WeightsError: when it is none of these or damaged.
    """
    if Path(model).suffix != ".pt":
        return load_network(str(model))
    return network_in(load(Path(model)), model)


def network_in(state: State, name: str | Path) -> nn.Module:
    """The network of a checkpoint, with its averaged weights. ``name`` is for errors.

    Raises:
        WeightsError: when it does not hold what it should.
    """
    try:
        found = networks.build(state["config"])
        found.load_state_dict(state["ema"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{name}: does not hold the weights it should ({reason})") from error
    return found.eval()


def refuse_baseline(config: Mapping[str, Any]) -> None:
    """The product runs BANet.

    Raises:
        UsageError: when the configuration is another network's.
    """
    name = config["network"]
    if name != "banet":
        raise UsageError(f"this checkpoint holds the baseline {name}, which only training can run")


def write_weights(path: Path, state: State, *, half: bool = False) -> None:
    """The averaged weights of a checkpoint as the .safetensors that ``banet_stream`` loads.

    Whole or not at all; float32 and contiguous, with ``half`` the convolutions' kernels in float16. The
    metadata says how to build the network, and what it was trained on.

    Raises:
        UsageError: when it holds a baseline.
        OutputError: when it can't be written.
    """
    config = state["config"]
    refuse_baseline(config)
    tensors = {name: stored(value, half=half).contiguous() for name, value in state["ema"].items()}
    metadata = {name: str(config[name]) for name in ("channels", "detail_stride", "temperature", "context")}
    metadata["iteration"] = str(state["iteration"])
    metadata["sets"] = json.dumps(sets_seen(state))
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(serialise(tensors, metadata))  # save_file would leave it readable by its owner only
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: can't be written ({error})") from error


def stored(value: Tensor, *, half: bool) -> Tensor:
    """A tensor as a weights file holds it. Batch norms' numbers and biases stay float32: a variance may be
    beyond float16, and all of them are little."""
    if not value.is_floating_point():
        return value
    return value.half() if half and value.ndim > 1 else value.float()


def ancestors(init: str) -> list[dict[str, Any]]:
    """What the run that starts from ``init`` must remember about it: where weights come from stays known."""
    if Path(init).suffix == ".pt":
        state = load(Path(init))
        earlier: list[dict[str, Any]] = state.get("ancestors", [])
        sets = dict(state["config"]["sets"])
        return [*earlier, {"init": Path(init).name, "iteration": state["iteration"], "sets": sets}]
    load_network(init)  # refuses what is no model
    shipped = WEIGHTS / f"{init}.safetensors"
    with safe_open(shipped if shipped.exists() else Path(init), "pt") as file:
        facts = file.metadata()
    sets = dict.fromkeys(json.loads(facts.get("sets", "[]")))
    return [{"init": Path(init).name, "iteration": int(facts.get("iteration", 0)), "sets": sets}]


def lineage(state: State) -> list[dict[str, Any]]:
    """A checkpoint's ancestors; early checkpoints name only the file they started from, so it is looked at.

    Raises:
        WeightsError: when that file is not there any more.
    """
    if "ancestors" in state:
        return list(state["ancestors"])
    init = state["config"]["init"]
    return ancestors(init) if init else []


def sets_seen(state: State) -> list[str]:
    """Every set the weights have learnt from, this run's first."""
    names = list(state["config"]["sets"])
    for ancestor in state.get("ancestors", []):
        names += [name for name in ancestor["sets"] if name not in names]
    return names

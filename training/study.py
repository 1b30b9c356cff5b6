"""Several networks trained with one recipe and budget and measured alike: what the paper's tables need."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from banet_stream.engines import TorchEngine, choose_device
from banet_stream.errors import InputError, UsageError

from . import checkpoint, evaluate, networks, sets, train
from .augment import ASPECTS, multiple_of_32
from .command import command
from .config import PRECISIONS, PRESETS, Config, set_weights

# The paper's input for speed.
SPEED_SIZE = 512
SPEED_WARM_UP = 3


@dataclass(frozen=True)
class Entry:
    """A row of a table: what is trained, and what the paper found."""

    label: str
    name: str  # of its folder
    paper: dict[str, float]
    changes: dict[str, Any] = field(default_factory=dict)  # of the configuration
    refine: bool = False  # whether its second stage has the refine loss


@dataclass(frozen=True)
class Row:
    """What was measured."""

    label: str
    miou: float  # percent
    fps: float  # at 512x512, one picture at a time
    parameters: int
    paper: dict[str, float]
    budget: str  # as ``budget`` puts it


def stages(entry: Entry, options: argparse.Namespace) -> list[Config]:
    """The paper's two stages, at the budget asked for."""
    size = {"size_start": options.size, "size_end": options.size} if options.size else {}
    given = {name: getattr(options, name) for name in ("iterations", "batch", "max_rate")}
    places = {"data": options.data, "device": options.device, "workers": options.workers}
    places |= {"precision": options.precision, "validation": options.validation, "seed": options.seed}
    common = size | {name: value for name, value in given.items() if value} | places | entry.changes
    out = Path(options.out) / entry.name
    first = PRESETS["paper"] | {"sets": options.first_sets} | common
    second = PRESETS["paper-refine"] | {"sets": options.second_sets} | common
    second["init"] = str(out / "1" / "checkpoint.pt")
    if not entry.refine:
        second["refine_weight"] = 0.0
    made = []
    for number, values in ((1, first), (2, second)):
        config = Config(**values | {"out": str(out / str(number))})
        made.append(dataclasses.replace(config, evaluate_every=0))  # it is measured at the end, once
    return made


def measure(entry: Entry, options: argparse.Namespace) -> Row:
    """Trains an entry, or goes on with it, and measures what came out.

    Raises:
        BanetStreamError: as ``train.train``.
    """
    print(f"--- {entry.label}", flush=True)
    configs = stages(entry, options)
    for config in configs:
        train.train(config)
    trained = Path(configs[-1].out) / "checkpoint.pt"
    where = choose_device(options.device)
    network = checkpoint.network(trained)
    engine = TorchEngine(network, where, "float32")  # type: ignore[arg-type]
    # As many pixels as in training, in the pictures' own shape.
    longest = multiple_of_32(configs[-1].size_end / ASPECTS["paper"][0] ** 0.5)
    path = sets.locate(Path(options.data), [options.validation])[options.validation]
    _, miou = evaluate.score(evaluate.alone(engine, longest), sets.read(path), quick=True)
    fps = frames_per_second(engine, options.speed_runs)
    return Row(entry.label, miou, fps, networks.parameters(network), entry.paper, budget(configs[-1]))


def frames_per_second(engine: TorchEngine, runs: int) -> float:
    """At 512x512, float32, one picture at a time: from the median time of a run."""
    image = torch.zeros(1, 3, SPEED_SIZE, SPEED_SIZE, device=engine.device)
    seconds = []
    for number in range(SPEED_WARM_UP + runs):
        began = time.perf_counter()
        engine(image).sum().item()  # waits for the device
        if number >= SPEED_WARM_UP:
            seconds.append(time.perf_counter() - began)
    return 1 / statistics.median(seconds)


def budget(config: Config) -> str:
    """What a table's rows have in common, in words."""
    return (
        f"{config.iterations} iterations in each of two stages, batches of {config.batch}, crops of "
        f"{config.size_end}^2 pixels, SGD to {config.max_rate:g}, seed {config.seed}; speed on "
        f"{device_name(config.device)}, float32, {SPEED_SIZE}x{SPEED_SIZE}, one picture at a time."
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown: the budget, then a line per row with the paper's figures beside ours."""
    lines = [
        rows[0].budget,
        "",
        "| model | mIoU % | fps | parameters, M | paper: mIoU % | fps | parameters, M |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        paper = [
            f"{row.paper[name]:g}" if name in row.paper else "" for name in ("miou", "fps", "parameters")
        ]
        ours = [f"{row.miou:.2f}", f"{row.fps:.1f}", f"{row.parameters / 1e6:.2f}"]
        lines.append("| " + " | ".join([row.label, *ours, *paper]) + " |")
    return "\n".join(lines)


def device_name(device: str) -> str:
    if choose_device(device).type == "cuda":
        return torch.cuda.get_device_name(choose_device(device))
    return f"a CPU ({torch.get_num_threads()} threads)"


def run(entries: Sequence[Entry], options: argparse.Namespace, name: str) -> None:
    """All rows, one after the other; the table is written again after each.

    Rows that ``--only`` leaves out stay as they were measured before.
    """
    wanted = options.only.split(",") if options.only else [entry.name for entry in entries]
    unknown = sorted(set(wanted) - {entry.name for entry in entries})
    if unknown:
        known = ", ".join(entry.name for entry in entries)
        raise UsageError(f"--only: must be some of {known}, got {', '.join(unknown)}")
    out = Path(options.out)
    rows = read_rows(out / f"{name}.json")
    own = budget(stages(entries[0], options)[-1])
    for row in rows.values():
        if row.budget != own:
            raise UsageError(
                f"--out {out}: its table says: {row.budget} These options would be: {own} "
                "Give the same ones, or another --out"
            )
    for entry in entries:
        if entry.name not in wanted:
            continue
        rows[entry.label] = measure(entry, options)
        done = [rows[other.label] for other in entries if other.label in rows]
        text = table(done)
        evaluate.write(out / f"{name}.md", (text + "\n").encode())
        facts = [dataclasses.asdict(row) for row in done]
        evaluate.write(out / f"{name}.json", (json.dumps(facts, indent=1) + "\n").encode())
    print(text)


def read_rows(path: Path) -> dict[str, Row]:
    """Rows by label, as ``run`` wrote them; none where there is no such file.

    Raises:
        InputError: when it holds something else.
    """
    if not path.exists():
        return {}
    try:
        return {facts["label"]: Row(**facts) for facts in json.loads(path.read_text())}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: holds no rows of a table ({error}); remove it") from error


def parser(prog: str, description: str | None, out: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", default="../shared/data", help="folder of the sets (default: %(default)s)")
    made.add_argument("--out", default=out, help="a folder per row, and the table (default: %(default)s)")
    made.add_argument("--only", default="", help="these rows, separated by commas")
    made.add_argument("--iterations", type=int, default=0, help="of each stage (default: the paper's 40,000)")
    made.add_argument("--batch", type=int, default=0, help="default: the paper's 16")
    made.add_argument("--size", type=int, default=0, help="of crops (default: the paper's 512)")
    made.add_argument("--max-rate", type=float, default=0.0, help="default: the paper's 0.1")
    made.add_argument(
        "--first-sets", type=set_weights, default={"fashion-train": 1.0}, help="JSON (default: %(default)s)"
    )
    made.add_argument(
        "--second-sets",
        type=set_weights,
        default={"portraits-train": 1.0},
        help="JSON (default: %(default)s)",
    )
    made.add_argument("--validation", default="portraits-val", help="what is measured (default: %(default)s)")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    made.add_argument("--precision", default="auto", choices=PRECISIONS)
    made.add_argument("--workers", type=int, default=1, help="processes that prepare samples")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument(
        "--speed-runs", type=int, default=30, help="forward passes timed (default: %(default)s)"
    )
    return made


def main(entries: Sequence[Entry], options: argparse.Namespace, name: str) -> None:
    """Leaves through ``SystemExit`` with the error's exit code."""
    with command(name, "interrupted; the same command goes on"):
        run(entries, options, name)

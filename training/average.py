"""The mean of two checkpoints' averaged weights: a run's and those it started from, often better than both.

python -m training.average runs/e/checkpoint.pt runs/f/checkpoint.pt --share 0.6 --out runs/ef/checkpoint.pt
python -m training.average runs/w/checkpoint.pt runs/f/checkpoint.pt --since runs/e/checkpoint.pt --share 1 \\
    --out runs/wf/checkpoint.pt

A first one with fewer channels, from which a wider network started (widen.py), is given the second's others.
The checkpoint it writes is the second one with these weights in place of its own; it is for evaluating,
exporting and --init, not for going on.

With --since it is the first one, and to its weights is added what the second has learnt since a third, which
the first one too has come from (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089): what a narrow network
learnt in hours a wide one need not learn in days.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from banet_stream.errors import OutputError, UsageError

from . import checkpoint
from .command import command
from .widen import adopt


def average(first: Path, second: Path, *, share: float) -> checkpoint.State:
    """``second`` with ``share`` of its averaged weights and the rest of ``first``'s.

    Raises:
        UsageError: when they are not of one network, or the share is not in 0..1.
        WeightsError: when a file is no checkpoint.
    """
    refuse_share(share)
    state = checkpoint.load(second)
    other = checkpoint.network_in(state, second)
    start = begun_from(first, other, second)
    mixed = {
        name: share * values + (1 - share) * start[name] if values.is_floating_point() else values
        for name, values in other.state_dict().items()
    }
    return state | {"ema": mixed, "ancestors": learnt_from(state, first, "averaged")}


def plus(first: Path, second: Path, since: Path, *, share: float) -> checkpoint.State:
    """``first``, and added to its averaged weights ``share`` times what ``second`` learnt since ``since``.
    Both may have fewer channels.

    Raises:
        UsageError: when the share is not in 0..1, or they are not of one network.
        WeightsError: when a file is no checkpoint.
    """
    refuse_share(share)
    state = checkpoint.load(first)
    base = checkpoint.network_in(state, first)
    later, earlier = (begun_from(path, base, first) for path in (second, since))
    mixed = {}
    for name, values in base.state_dict().items():
        moved = values + share * (later[name] - earlier[name]) if values.is_floating_point() else values
        mixed[name] = moved.clamp(min=0) if name.endswith("running_var") else moved
    return state | {"ema": mixed, "ancestors": learnt_from(state, second, "added")}


def learnt_from(state: checkpoint.State, other: Path, how: str) -> list[dict[str, Any]]:
    """The ancestors of ``state``; then those of ``other``, which is mixed in, and itself, marked ``how``."""
    known, mixed_in = checkpoint.lineage(state), checkpoint.ancestors(str(other))
    mixed_in[-1][how] = True
    return [*known, *(a for a in mixed_in if a not in known)]


def begun_from(path: Path, model: nn.Module, name: Path) -> dict[str, Tensor]:
    """The weights of ``model``, called ``name``, had it started from those of ``path``.

    Raises:
        UsageError: when ``path`` holds another network.
    """
    begun = copy.deepcopy(model)
    try:
        adopt(checkpoint.network(path), begun)
    except RuntimeError as error:
        raise UsageError(f"{path} and {name}: hold different networks") from error
    return begun.state_dict()


def refuse_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UsageError(f"--share {share:g}: must be between 0 and 1")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second (default: %(default)s)")
    parser.add_argument("--since", type=Path, help="add to the first what the second learnt since this one")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    if options.since:
        state = plus(options.first, options.second, options.since, share=options.share)
    else:
        state = average(options.first, options.second, share=options.share)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{options.out.parent}: can't be made ({error})") from error
    checkpoint.save(options.out, state)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("average"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

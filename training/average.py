"""The mean of two checkpoints' averaged weights: a run's and those it started from, often better than both.

python -m training.average runs/e/checkpoint.pt runs/f/checkpoint.pt --share 0.6 --out runs/ef/checkpoint.pt

A first one with fewer channels, from which a wider network started (widen.py), is given the second's others.
The checkpoint it writes is the second one with these weights in place of its own; it is for evaluating,
exporting and --init, not for going on.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

from banet_stream.errors import BanetStreamError, OutputError, UsageError

from . import checkpoint
from .widen import adopt


def average(first: Path, second: Path, *, share: float) -> checkpoint.State:
    """``second`` with ``share`` of its averaged weights and the rest of ``first``'s.

    Raises:
        UsageError: when they are not of one network, or the share is not in 0..1.
        WeightsError: when a file is no checkpoint.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"--share {share:g}: must be between 0 and 1")
    state = checkpoint.load(second)
    one, other = checkpoint.network(first), checkpoint.network_in(state, second)
    begun = copy.deepcopy(other)
    try:
        adopt(one, begun)
    except RuntimeError as error:
        raise UsageError(f"{first} and {second}: hold different networks") from error
    start = begun.state_dict()
    mixed = {
        name: share * values + (1 - share) * start[name] if values.is_floating_point() else values
        for name, values in other.state_dict().items()
    }
    return state | {"ema": mixed}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    state = average(options.first, options.second, share=options.share)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{options.out.parent}: can't be made ({error})") from error
    checkpoint.save(options.out, state)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    try:
        run(parse(arguments))
    except BanetStreamError as error:
        print(f"training.average: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""What got slower: the operators' speed-ups over their references now, beside the last saved ones.

    python -m benchmarks.guard [--size 1080p] [--tolerance 0.25] [--strict]

A speed-up is a ratio of two times of one run, so it can be compared between days and machines of a kind;
milliseconds could not. Prints a table; with --strict the exit status is 1 when something got slower.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .bench_ops import RESULTS, SIZES, cases, keep_memory, measure


def saved_ratios(path: Path) -> dict[str, float]:
    """Operator -> times faster than its reference, from a table that bench_ops.py saved.

    Raises:
        SystemExit: when there is none, or it holds no table.
    """
    if not path.exists():
        sys.exit(f"{path.name}: not there; make it with: python -m benchmarks.bench_ops --save")
    ratios = {}
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 7 and cells[1] == "compiled":
            ratios[cells[0]] = float(cells[6])
    if not ratios:
        sys.exit(f"{path.name}: holds no table of bench_ops.py")
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="1080p")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each operator")
    parser.add_argument("--tolerance", type=float, default=0.25, help="a loss up to this share is noise")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when something got slower")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    before = saved_ratios(RESULTS / f"ops-cpu-{options.size}.md")
    slower = []
    print("| operator | times faster, saved | now | |\n|---|---|---|---|")
    for name, (call, moved) in cases(options.size, "cpu").items():
        fast, reference, _ = measure(call, moved, "cpu", options.seconds)
        now, then = reference / fast, before.get(name)
        if then is not None and now < then * (1 - options.tolerance):
            slower.append(name)
        was, verdict = "new" if then is None else f"{then:.1f}", "slower" if name in slower else ""
        print(f"| {name} | {was} | {now:.1f} | {verdict} |", flush=True)
    print(f"slower than saved: {', '.join(slower)}" if slower else "nothing got slower")
    return 1 if slower and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())

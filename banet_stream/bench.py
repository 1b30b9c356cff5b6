"""``banet-stream bench CLIP``: how fast the whole job is on this machine, and which stage sets the pace."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .codecs import EncodeOptions
from .errors import BanetStreamError, Interrupted, UsageError
from .matter_options import add_matter_options, make_matter
from .redact import RedactingParser, redact
from .stream import Summary, process, stats_table


def main(arguments: Sequence[str]) -> int:
    """Prints one line per run and the middle run's table; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        measure(options)
    except Interrupted as error:  # what was written is gone with its folder
        print("banet-stream bench: interrupted", file=sys.stderr)
        return error.exit_code
    except BanetStreamError as error:
        print(f"banet-stream bench: {redact(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = RedactingParser(
        prog="banet-stream bench",
        description="Processes CLIP several times into a temporary file and prints frames per second, end to "
        "end, and the time of every stage.",
    )
    add = parser.add_argument
    add("clip", metavar="CLIP", help="video file")
    add("--bg", metavar="BACKGROUND", default="green", help="as in the main command; default: green")
    add("--repeats", type=int, default=3, help="runs; the middle one's table is shown; default: 3")
    add_matter_options(parser)
    add("--codec", help="default: h264")
    return parser


def measure(options: argparse.Namespace) -> None:
    """Runs and prints.

    Raises:
        BanetStreamError: as the main command would.
    """
    if options.repeats < 1:
        raise UsageError(f"--repeats: must be 1 or more, got {options.repeats}")
    began = time.perf_counter()
    matter = make_matter(options)
    print(f"model loaded in {time.perf_counter() - began:.2f} s")
    runs: list[Summary] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repeats):
            summary = process(
                options.clip,
                Path(folder) / f"{number}.mp4",
                background=options.bg,
                matter=matter,
                audio=False,
                encoding=EncodeOptions(codec=options.codec),
            )
            print(
                f"run {number + 1}: {summary.frames} frames in {summary.seconds:.2f} s, {summary.fps:.1f} fps"
            )
            runs.append(summary)
    middle = statistics.median_low([run.fps for run in runs])
    print(stats_table(next(run for run in runs if run.fps == middle)))

"""Self-training: a trained network labels pictures that have no mattes, and says where it is sure.

python -m training.pseudo --model runs/banet64/checkpoint.pt --data ../shared/data/portraits-unlabelled.tar \\
    --out ../shared/data/portraits-pseudo.tar --sheet pseudo.png
python -m training.pseudo --model banet64 --check ../shared/data/portraits-val.tar

The teacher is a checkpoint's averaged weights (or a shipped model). It looks at every picture at several
sizes and mirrored; the mean is the label. Where the views disagree or the mean is undecided the label does
not count (KEY.weight.png), and a picture that counts too little is left out. The tar is a set like any other:
--sets '{"portraits-train": 0.7, "portraits-pseudo": 0.3}'. --check labels pictures that have mattes, writes
nothing, and says how right the labels are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from banet_stream.errors import InputError, UsageError

from . import evaluate, metrics, sets, sheet, tars
from .command import command
from .pairs import Array, Pair

# Longest sides at which the teacher looks: what it was trained at, and a little around it.
SIZES = (256, 320, 416)
# A pixel counts where no two views differ by more than this, and the mean is this far from one half.
LARGEST_SPREAD, SMALLEST_DECISION = 0.3, 0.3
# A picture stays where this share of it counts.
SMALLEST_SHARE = 0.85
SHOWN = 24


class Labelled(NamedTuple):
    """A picture's label: a hard matte, and where it counts."""

    matte: Array  # [H, W] uint8, 0 or 255
    weight: Array  # [H, W] uint8, 0 or 255

    @property
    def share(self) -> float:
        return float(np.count_nonzero(self.weight) / self.weight.size)


def label(views: Sequence[Callable[[Array], evaluate.Matte]], rgb: Array) -> Labelled:
    """What several views of one picture [H, W, 3], each also mirrored, agree on."""
    mirrored = np.ascontiguousarray(rgb[:, ::-1])
    found = [view(rgb) for view in views] + [view(mirrored)[:, ::-1] for view in views]
    mean, spread = np.mean(found, 0), np.max(found, 0) - np.min(found, 0)
    sure = (spread <= LARGEST_SPREAD) & (np.abs(mean - 0.5) >= SMALLEST_DECISION)
    matte, weight = (np.where(mask, np.uint8(255), np.uint8(0)) for mask in (mean >= 0.5, sure))
    return Labelled(matte, weight)


def label_all(
    views: Sequence[Callable[[Array], evaluate.Matte]], pairs: Sequence[Pair], smallest_share: float
) -> Iterator[tuple[Pair, Labelled]]:
    """The pictures that stay, with their labels."""
    for pair in pairs:
        found = label(views, pair.decode().image)
        if found.share >= smallest_share:
            yield pair, found


def write_tar(path: Path, labelled: Iterator[tuple[Pair, Labelled]]) -> list[tuple[Pair, Labelled]]:
    """Whole or not at all; returns what was written.

    Raises:
        OutputError: when it can't be written.
        InputError: when no picture stays.
    """
    kept = []

    def files() -> Iterator[tuple[str, bytes]]:
        for pair, found in labelled:
            yield from tars.files_of(pair, found.matte, found.weight)
            kept.append((pair, found))
        if not kept:
            raise InputError("the network is sure of no picture; nothing was written")

    tars.write(path, files())
    return kept


def check(labelled: Iterator[tuple[Pair, Labelled]]) -> tuple[int, float, float]:
    """Of pictures with mattes: how many stay, the mIoU of their labels where they count, and everywhere.

    Raises:
        InputError: when none stays.
    """
    stay, counted, everywhere = 0, metrics.MeanIoU(), metrics.MeanIoU()
    for pair, found in labelled:
        truth, said, counts = pair.decode().matte, (found.matte / 255).astype(np.float32), found.weight > 0
        counted.add(said[counts], truth[counts])
        everywhere.add(said, truth)
        stay += 1
    if not stay:
        raise InputError("the network is sure of no picture")
    return stay, counted.value, everywhere.value


def run(options: argparse.Namespace) -> None:
    if not 0 <= options.smallest_share <= 1:
        raise UsageError(f"--smallest-share: must be between 0 and 1, got {options.smallest_share}")
    if bool(options.check) == bool(options.data and options.out):
        raise UsageError("either --data and --out, or --check alone")
    pairs = sets.read(Path(options.check)) if options.check else sets.read_unlabelled(Path(options.data))
    views = [
        evaluate.predictor(
            options.model, size=size, precision="float32", device=options.device, product=False
        )
        for size in SIZES
    ]
    if options.check:
        stay, counted, everywhere = check(label_all(views, pairs, options.smallest_share))
        print(
            f"{stay} of {len(pairs)} pictures would stay; mIoU {counted:.1f} % where they count, "
            f"{everywhere:.1f} % everywhere"
        )
        return
    kept = write_tar(Path(options.out), label_all(views, pairs, options.smallest_share))
    share = np.mean([found.share for _, found in kept])
    print(f"{options.out}: {len(kept)} of {len(pairs)} pictures; {100 * share:.1f} % of their pixels count")
    if options.sheet:
        cells = []
        for pair, found in sorted(kept, key=lambda item: item[1].share)[:SHOWN]:
            views_shown = [pair.decode().image, *(np.dstack([plane] * 3) for plane in found)]
            cells.append(sheet.cell(views_shown, f"{100 * found.share:.0f} % {pair.key.rpartition(' ')[2]}"))
        evaluate.write(Path(options.sheet), sheet.png(sheet.grid(cells, sheet.SHEET_COLUMNS)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.pseudo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="banet64", help="shipped name, .safetensors or checkpoint.pt")
    parser.add_argument("--data", help="tar or folder of pictures without mattes")
    parser.add_argument("--out", metavar="FILE.tar", help="the set that is made")
    parser.add_argument(
        "--check", metavar="DATA", help="instead: pictures with mattes, to see how right labels are"
    )
    parser.add_argument("--smallest-share", type=float, default=SMALLEST_SHARE, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="the least sure: picture | label | where it counts"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("pseudo"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

"""Self-training: trained networks label pictures that have no mattes, and say where they are sure.

python -m training.pseudo --model banet64 banet512 --data ../shared/data/portraits-unlabelled.tar \\
    --out ../shared/data/portraits-pseudo.tar --sheet pseudo.png
python -m training.pseudo --model banet64 banet512 --check ../shared/data/portraits-val.tar

The teachers are checkpoints' averaged weights (or shipped models). Each looks at every picture at several
sizes and mirrored; the mean is the label. --also names a folder with the mattes of another program, KEY.png,
which count as much as all networks together: who learnt from other pictures is wrong in other places. A
label counts by how decided the mean is (KEY.weight.png); along outlines, where every matte is soft, it
counts fully. A picture that counts too little is left out. The tar is a set like any other:
--sets '{"portraits-train": 0.7, "portraits-pseudo": 0.3}'. --check labels pictures that have mattes, writes
nothing, and says how right the labels are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from banet_stream.errors import InputError, UsageError

from . import evaluate, metrics, sets, sheet, tars
from .command import command
from .pairs import Array, Pair

# Longest sides at which a teacher looks.
SIZES = (320, 416)
# A pixel counts fully where the mean is this far from one half, less where it is nearer. (Of the mean of two
# networks and MediaPipe, on portraits-val, 61 % of the pixels 0.05 to 0.1 away are right, 81 % of those 0.25
# to 0.3 away, 99.6 % of those 0.45 away: about what counting by the distance takes them for.)
DECIDED = 0.45
# An outline is where the mean goes from nobody to somebody within this share of the longer side.
NOBODY, SOMEBODY, OUTLINE_REACH = 0.15, 0.85, 1 / 64
# A picture stays where this share of it counts.
SMALLEST_SHARE = 0.8
SHOWN = 24

View = Callable[[Array], evaluate.Matte]


class Labelled(NamedTuple):
    """A picture's label: a hard matte, and how much it counts where."""

    matte: Array  # [H, W] uint8, 0 or 255
    weight: Array  # [H, W] uint8

    @property
    def share(self) -> float:
        return float(self.weight.mean() / 255)


def look(views: Sequence[View], rgb: Array) -> evaluate.Matte:
    """The mean of several views of one picture [H, W, 3], each also mirrored."""
    mirrored = np.ascontiguousarray(rgb[:, ::-1])
    found = [view(rgb) for view in views] + [view(mirrored)[:, ::-1] for view in views]
    mean: evaluate.Matte = np.mean(found, 0, dtype=np.float32)
    return mean


def label(mean: evaluate.Matte) -> Labelled:
    """What a mean of mattes [H, W] in 0..1 says."""
    weight = np.clip(np.abs(mean - 0.5) / DECIDED, 0, 1)
    around = np.ones((2 * round(OUTLINE_REACH * max(mean.shape)) + 1,) * 2, np.uint8)
    outline = (cv2.erode(mean, around) < NOBODY) & (cv2.dilate(mean, around) > SOMEBODY)
    weight[outline] = 1
    return Labelled(
        np.where(mean >= 0.5, np.uint8(255), np.uint8(0)), np.round(255 * weight).astype(np.uint8)
    )


def label_all(
    views: Sequence[View], pairs: Sequence[Pair], smallest_share: float, also: Path | None = None
) -> Iterator[tuple[Pair, Labelled]]:
    """The pictures that stay, with their labels. ``also``: a folder with another program's mattes of all.

    Raises:
        InputError: when one of these can't be read or has another size than its picture.
    """
    for pair in pairs:
        rgb = pair.decode().image
        mean = look(views, rgb)
        if also:
            mean = 0.5 * mean + 0.5 * read_matte(also / f"{pair.key.rpartition(': ')[2]}.png", mean.shape)
        found = label(mean)
        if found.share >= smallest_share:
            yield pair, found


def read_matte(path: Path, shape: tuple[int, ...]) -> evaluate.Matte:
    matte = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if matte is None:
        raise InputError(f"{path}: is not there, or no picture; --also needs one for every KEY.jpg")
    if matte.shape != shape:
        raise InputError(f"{path}: its size {matte.shape} is not the picture's, {shape}")
    return (matte / 255).astype(np.float32)


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
    """Of pictures with mattes: how many stay, their labels' mIoU where they count fully, and everywhere.

    Raises:
        InputError: when none stays.
    """
    stay, counted, everywhere = 0, metrics.MeanIoU(), metrics.MeanIoU()
    for pair, found in labelled:
        truth, said, counts = pair.decode().matte, (found.matte / 255).astype(np.float32), found.weight == 255
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
        evaluate.predictor(model, size=size, precision="float32", device=options.device, product=False)
        for model in options.model
        for size in SIZES
    ]
    labelled = label_all(views, pairs, options.smallest_share, Path(options.also) if options.also else None)
    if options.check:
        stay, counted, everywhere = check(labelled)
        print(
            f"{stay} of {len(pairs)} pictures would stay; mIoU {counted:.1f} % where they count fully, "
            f"{everywhere:.1f} % everywhere"
        )
        return
    kept = write_tar(Path(options.out), labelled)
    share = np.mean([found.share for _, found in kept])
    print(f"{options.out}: {len(kept)} of {len(pairs)} pictures; {100 * share:.1f} % of their pixels count")
    if options.sheet:
        cells = []
        for pair, found in sorted(kept, key=lambda item: item[1].share)[:SHOWN]:
            views_shown = [pair.decode().image, *(np.dstack([plane] * 3) for plane in found)]
            cells.append(sheet.cell(views_shown, f"{100 * found.share:.0f} % {pair.key.rpartition(': ')[2]}"))
        evaluate.write(Path(options.sheet), sheet.png(sheet.grid(cells, sheet.SHEET_COLUMNS)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.pseudo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", nargs="+", default=["banet64"], help="shipped names, .safetensors or checkpoint.pt"
    )
    parser.add_argument(
        "--also", metavar="FOLDER", help="another program's mattes of the same pictures, KEY.png"
    )
    parser.add_argument("--data", help="tar or folder of pictures without mattes")
    parser.add_argument("--out", metavar="FILE.tar", help="the set that is made")
    parser.add_argument(
        "--check", metavar="DATA", help="instead: pictures with mattes, to see how right labels are"
    )
    parser.add_argument("--smallest-share", type=float, default=SMALLEST_SHARE, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="the least sure: picture | label | how much it counts"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("pseudo"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

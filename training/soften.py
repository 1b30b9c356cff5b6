"""Soft mattes from hard masks: who outlines hair takes in what lies between it, and a network learns to.

python -m training.soften --data ../shared/data/portraits-train.tar \\
    --out ../shared/data/portraits-train-matted.tar --sheet softened.png

Along the outline of a mask, in a band that is the wider the larger the person is, alpha is estimated anew
from the picture's colours: closed-form matting (Levin et al. 2008) by pymatting. Hands draw outlines too far
out rather than too far in, so most of the band lies inside. What lies deeper stays person, what lies farther
out background, and weights stay as they are. The tar is a set like any other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pymatting import estimate_alpha_cf, jacobi

from banet_stream.errors import UsageError

from . import evaluate, sets, sheet, tars
from .command import command
from .pairs import Array, Pair

# How far the band reaches inside, as a share of the square root of the person's pixels; at least and at most,
# in pixels.
DEPTH, SMALLEST_DEPTH, LARGEST_DEPTH = 0.025, 1.5, 5.0
# How far it reaches outside, as a share of that, and at least.
OUTSIDE, SMALLEST_OUTSIDE = 0.4, 1.0
# Of fingers and straps, narrower than the band, the middle stays person: what is deeper than this and, as a
# share of what is deepest near it, so deep.
SMALLEST_MIDDLE, MIDDLE = 1.5, 0.75
# A mask goes on beyond the picture's edges so far.
BEYOND = 8
# On these, rims of the old background show best.
PALE = (232, 232, 240)
SHOWN = 24


def trimap(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 where [H, W] somebody is surely, 0 where surely nobody, and 0.5 along the outline."""
    depth = np.clip(DEPTH * math.sqrt(np.count_nonzero(mask)), SMALLEST_DEPTH, LARGEST_DEPTH)
    inside = distance(np.pad(mask, BEYOND, mode="edge"))
    side = 2 * math.ceil(depth) + 1
    deepest = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    middle = (inside >= MIDDLE * deepest) & (inside > SMALLEST_MIDDLE)
    person = ((inside > depth) | middle)[BEYOND:-BEYOND, BEYOND:-BEYOND]
    background = distance(~mask) > max(SMALLEST_OUTSIDE, OUTSIDE * depth)
    return np.where(person, 1.0, np.where(background, 0.0, 0.5))


def distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far every pixel of it is from the rest."""
    found = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return found.astype(np.float32, copy=False)


def soften(image: Array, matte: Array) -> Array:
    """A matte [H, W] uint8, hard or not, with an outline by the colours of the picture [H, W, 3]. One that is
    everywhere alike stays as it is."""
    known = trimap(matte > 127)
    if not {0.0, 0.5, 1.0} <= set(np.unique(known)):
        return matte
    # pymatting's default preconditioner prints what it tries.
    alpha: NDArray[np.float64] = estimate_alpha_cf(image / 255.0, known, preconditioner=jacobi)
    return np.round(255 * alpha).astype(np.uint8)


def run(options: argparse.Namespace) -> None:
    out = Path(options.out)
    if out.resolve() == Path(options.data).resolve():
        raise UsageError(f"--out: {out} is --data itself")
    pairs, cells = sets.read(Path(options.data)), []
    shown = {round(place) for place in np.linspace(0, len(pairs) - 1, SHOWN)}

    def files() -> Iterator[tuple[str, bytes]]:
        for number, pair in enumerate(pairs):
            image, matte, weight = pair.decode()
            found = soften(image, matte)
            yield from tars.files_of(pair, found, weight)
            if options.sheet and number in shown:
                cells.append(before_pale(pair, image, [matte, found]))

    tars.write(out, files())
    print(f"{out}: {len(pairs)} pictures")
    if options.sheet:
        evaluate.write(Path(options.sheet), sheet.png(sheet.grid(cells, sheet.SHEET_COLUMNS)))


def before_pale(pair: Pair, image: Array, mattes: Sequence[Array]) -> Array:
    """The picture, and its person by each matte before a pale background."""
    shares = [matte[..., None] / 255 for matte in mattes]
    cut = [np.round(image * share + np.array(PALE) * (1 - share)).astype(np.uint8) for share in shares]
    return sheet.cell([image, *cut], pair.key.rpartition(": ")[2])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.soften",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="tar or folder of pictures with masks")
    parser.add_argument("--out", required=True, metavar="FILE.tar", help="the set that is made")
    parser.add_argument("--sheet", metavar="FILE.png", help="some: picture | by its mask | by its matte")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("soften"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

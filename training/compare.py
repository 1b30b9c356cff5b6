"""The paper's table 2: seven networks, one recipe, one budget.

python -m training.compare --device cuda --workers 8
python -m training.compare --iterations 250 --size 192 --batch 8 --out runs/compare-short

Each network gets the paper's two stages (the refine loss belongs to BANet alone) with the same batches, and
is measured alike. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import study
from .study import Entry

ENTRIES = (
    Entry("ENet", "enet", {"miou": 88.24, "fps": 46, "parameters": 0.35}, {"network": "enet"}),
    Entry("BiSeNet", "bisenet", {"miou": 93.91, "fps": 59, "parameters": 27.01}, {"network": "bisenet"}),
    Entry("EDANet", "edanet", {"miou": 94.90, "fps": 71, "parameters": 0.68}, {"network": "edanet"}),
    Entry("U-Net", "unet", {"miou": 95.88, "fps": 37, "parameters": 13.40}, {"network": "unet"}),
    Entry("PFCN+", "pfcn", {"miou": 95.92, "fps": 8, "parameters": 134.27}, {"network": "pfcn"}),
    Entry("BANet-64", "banet64", {"miou": 95.80, "fps": 43, "parameters": 0.62}, refine=True),
    Entry(
        "BANet-512",
        "banet512",
        {"miou": 96.13, "fps": 29, "parameters": 12.75},
        {"channels": 512},
        refine=True,
    ),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    return study.parser("python -m training.compare", __doc__, "runs/compare").parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(ENTRIES, parse(arguments), "compare")


if __name__ == "__main__":
    main()

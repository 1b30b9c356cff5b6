"""The paper's table 3: BANet-64 without attention, with it, and with the refine loss too.

python -m training.ablate --device cuda --workers 8
python -m training.ablate --iterations 400 --size 192 --batch 8 --out runs/ablate-short

The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import study
from .study import Entry

ENTRIES = (
    Entry("base", "base", {"miou": 94.90}, {"network": "banet-plain"}),
    Entry("+ boundary attention", "attention", {"miou": 95.20}),
    Entry("+ refine loss", "refine", {"miou": 95.80}, refine=True),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    return study.parser("python -m training.ablate", __doc__, "runs/ablate").parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(ENTRIES, parse(arguments), "ablate")


if __name__ == "__main__":
    main()

"""Accuracy against time: where the qualities of --quality lie.

    python -m benchmarks.pareto --data ../shared/data/portraits-val.tar [--model banet64] [--save]

The masks are portraits that fill a picture's height, so a network that sees 16:9 video with its longer side
at S sees such a person at S * 9/16: every row measures both, the portraits with their longer side at that
height and the time of an S-wide 16:9 picture. Another stride than the one it was trained with runs with the
same weights; the graph in 8 bits has the trained one. Where it looks twice it sees the mirrored picture, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from banet_stream.engines import Engine, load_network, quantised_path, weights_path
from banet_stream.matting import mean_with_mirrored, network_size
from banet_stream.network import BANet
from banet_stream.openvino_engine import OpenVinoEngine
from training import evaluate, sets

from .bench_ops import RESULTS, about, turn_by_turn

SIZES = (256, 320, 384, 448, 512, 576, 704)
# Precision, stride of the detail branch, looks.
WAYS = (("int8", 2, 1), ("int8", 2, 2), ("bfloat16", 2, 1), ("bfloat16", 4, 1))


class Twice:
    """An engine that sees every picture mirrored, too."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.device = engine, engine.device

    def __call__(self, image: Tensor) -> Tensor:
        """As the engine."""
        return mean_with_mirrored(self.engine(image), image, self.engine)


def milliseconds(engines: Sequence[Engine], size: int, runs: int = 30) -> list[float]:
    """Each one's median time of a 16:9 picture."""
    image = torch.rand(1, 3, *network_size(1080, 1920, size))
    return turn_by_turn([partial(engine, image) for engine in engines], runs, warm=3)


def with_stride(model: str, stride: int) -> BANet:
    trained = load_network(model)
    network = BANet(trained.channels, detail_stride=stride, temperature=trained.temperature)
    network.load_state_dict(trained.state_dict())
    return network.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits-val.tar"))
    parser.add_argument("--model", default="banet64")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    pairs = sets.read(options.data)
    threads = torch.get_num_threads()
    lines = [
        about("cpu", threads),
        "",
        f"{options.model}, OpenVINO:",
        "",
        "| size | precision | stride | looks | ms | person's height | mIoU % | boundary IoU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    quantised = quantised_path(weights_path(options.model))
    engines = []
    for precision, stride, looks in WAYS:
        engine = OpenVinoEngine(with_stride(options.model, stride), precision, quantised=quantised)
        engines.append(engine if looks == 1 else Twice(engine))
    for size in SIZES:
        height, times = size * 9 // 16, milliseconds(engines, size)
        for (precision, stride, looks), engine, took in zip(WAYS, engines, times, strict=True):
            numbers = evaluate.summary(*evaluate.score(evaluate.alone(engine, height), pairs))
            row = (size, precision, stride, looks, f"{took:.1f}", height, f"{numbers['miou']:.2f}")
            lines.append(f"| {' | '.join(map(str, row))} | {numbers['boundary_iou']:.3f} |")
            print(lines[-1], flush=True)
    if options.save:
        (RESULTS / "pareto-cpu.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

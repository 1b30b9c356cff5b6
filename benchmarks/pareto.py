"""Accuracy against time: where the qualities of --quality lie.

    python -m benchmarks.pareto --data ../shared/data/portraits-val.tar [--model banet64] [--save]

The masks are portraits that fill a picture's height, so a network that sees 16:9 video with its longer side
at S sees such a person at S * 9/16: every row measures both, the portraits with their longer side at that
height and the time of an S-wide 16:9 picture. The guided filter that every matte goes through is in both.
Another stride than the shipped one runs with the same weights; the graph in 8 bits has the shipped one.
Where it looks twice it sees the mirrored picture, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import torch
from skimage.data import astronaut
from torch import Tensor

from banet_stream.engines import (
    Engine,
    choose_precision,
    load_network,
    quantised_path,
    weights_path,
)
from banet_stream.matting import following, mean_of_both, network_size, with_mirrored
from banet_stream.network import BANet
from banet_stream.openvino_engine import OpenVinoEngine
from training import evaluate, sets
from training.data import to_input

from .bench_ops import RESULTS, about, turn_by_turn

SIZES = (256, 320, 384, 448, 512, 576, 704)
# Precision (floats: the fastest this CPU has), stride of the detail branch, looks.
WAYS = (("int8", 4, 1), ("int8", 4, 2), ("floats", 4, 1), ("floats", 2, 1))
Look = Callable[[Tensor], Tensor]


def looking(engine: Engine, looks: int) -> Look:
    """What a frame goes through in matting; with two ``looks`` the mirrored one, too."""

    def look(image: Tensor) -> Tensor:
        return following(engine(image) if looks == 1 else mean_of_both(engine(with_mirrored(image))), image)

    return look


def milliseconds(ways: Sequence[Look], size: int, runs: int = 30) -> list[float]:
    """Each one's median time of a 16:9 picture of somebody."""
    height, width = network_size(1080, 1920, size)
    picture = cv2.resize(astronaut()[:288], (width, height), interpolation=cv2.INTER_AREA)
    image = to_input(torch.from_numpy(picture[None]))
    return turn_by_turn([partial(look, image) for look in ways], runs, warm=3)


def with_stride(model: str, stride: int) -> BANet:
    trained = load_network(model)
    network = BANet(
        trained.channels, detail_stride=stride, temperature=trained.temperature, context=trained.context
    )
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
        f"{options.model}, OpenVINO and guided filter:",
        "",
        "| size | precision | stride | looks | ms | person's height | mIoU % | boundary IoU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    quantised = quantised_path(weights_path(options.model))
    floats = choose_precision("auto", torch.device("cpu"))
    ways, looks_of = [(floats if way[0] == "floats" else way[0], *way[1:]) for way in WAYS], []
    for precision, stride, looks in ways:
        engine = OpenVinoEngine(with_stride(options.model, stride), precision, quantised=quantised)
        looks_of.append(looking(engine, looks))
    for size in SIZES:
        height, times = size * 9 // 16, milliseconds(looks_of, size)
        for way, look, took in zip(ways, looks_of, times, strict=True):
            numbers = evaluate.summary(*evaluate.score(evaluate.alone(look, height), pairs))
            row = (size, *way, f"{took:.1f}", height, f"{numbers['miou']:.2f}")
            lines.append(f"| {' | '.join(map(str, row))} | {numbers['boundary_iou']:.3f} |")
            print(lines[-1], flush=True)
    if options.save:
        (RESULTS / "pareto-cpu.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

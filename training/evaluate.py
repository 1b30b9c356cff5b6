"""Accuracy of weights on hand-made masks.

python -m training.evaluate --model banet64 --data ../shared/data/portraits-val.tar
python -m training.evaluate --model runs/banet64/checkpoint.pt --product --size 512 --sheet worst.png

By default the network is measured alone: the picture with its longer side at --size, enlarged where it is
smaller, goes through the product's engine, and the matte comes back by plain bilinear interpolation. With
--product the whole of ``Matter(model, size=SIZE).alpha(picture)`` is measured: its resampling, which rounds
the network's sides to multiples of 32 and enlarges only very small pictures, and its edge-guided upsampling.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from banet_stream import Matter
from banet_stream.engines import TorchEngine, choose_device, choose_precision
from banet_stream.errors import BanetStreamError, OutputError, UsageError

from . import checkpoint, metrics
from .data import Pair, read_tar, to_input

VALIDATION = "portraits-val.tar"
DEFAULT_DATA = f"../shared/data/{VALIDATION}"
DEFAULT_SIZE = 320
WORST_LISTED, WORST_SHOWN = 10, 12
# Contact sheet: pictures of this height, this many triples side by side.
SHEET_HEIGHT, SHEET_COLUMNS = 200, 3

Picture = NDArray[np.uint8]  # [H, W, 3] RGB
Matte = NDArray[np.float32]  # [H, W] in 0..1
Predict = Callable[[Picture], Matte]


@dataclass(frozen=True)
class Score:
    """One picture's accuracy: IoUs in percent and 0..1, MAD and MSE of mattes in 0..1."""

    key: str
    miou: float
    boundary_iou: float
    mad: float
    mse: float


@torch.inference_mode()
def miou(model: nn.Module, pairs: list[Pair], device: str, size: int = DEFAULT_SIZE) -> dict[str, float]:
    """mIoU over the set and the mean of the pictures' own; ``size``: longest side the network sees."""
    model.eval()
    predict = alone(lambda image: torch.sigmoid(model(image.to(device)).alpha.float()), size)
    scores, total = score(predict, pairs)
    return {"miou": total, "miou_per_picture": float(np.mean([s.miou for s in scores]))}


def alone(network: Callable[[Tensor], Tensor], size: int) -> Predict:
    """The network without the product around it: normalised [1, 3, h, w] -> [1, 1, h, w] in 0..1."""

    def predict(rgb: Picture) -> Matte:
        rows, columns = rgb.shape[:2]
        scale = size / max(rows, columns)
        seen = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(rgb, seen, interpolation=method).astype(np.uint8, copy=False)
        alpha = network(to_input(small[None]))[0, 0].cpu().numpy()
        return cv2.resize(alpha, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(
            np.float32, copy=False
        )

    return predict


def predictor(model: str, *, size: int, precision: str, device: str, product: bool) -> Predict:
    """What to measure, by the command's options.

    Raises:
        WeightsError, DeviceError, UsageError: when one of them can't be had.
    """
    if product:
        return product_of(model, size=size, precision=precision, device=device)
    if size < 1:
        raise UsageError(f"--size: must be 1 or more, got {size}")
    where = choose_device(device)
    network = checkpoint.network(model)
    return alone(TorchEngine(network, where, choose_precision(precision, where)), size)


def product_of(model: str, *, size: int, precision: str, device: str) -> Predict:
    """``Matter.alpha``; a checkpoint goes there the way it will be shipped, through a .safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        if Path(model).suffix == ".pt":
            exported = Path(folder) / "weights.safetensors"
            checkpoint.write_weights(exported, checkpoint.load(Path(model)))
            model = str(exported)
        try:
            return Matter(model, device=device, precision=precision, size=size).alpha
        except ValueError as error:
            raise UsageError(str(error)) from error


def score(predict: Predict, pairs: list[Pair]) -> tuple[list[Score], float]:
    """Every picture's score, in order, and the set's mIoU."""
    total, scores = metrics.MeanIoU(), []
    for pair in pairs:
        rgb, matte = pair.decode()
        alpha = predict(rgb)
        scores.append(
            Score(
                key=pair.key,
                miou=total.add(alpha, matte),
                boundary_iou=metrics.boundary_iou(alpha, matte),
                mad=metrics.mad(alpha, matte),
                mse=metrics.mse(alpha, matte),
            )
        )
    return scores, total.value


def summary(scores: list[Score], total: float) -> dict[str, float]:
    """The set's numbers: ``miou`` counts all pixels together, all others are means of the pictures' own."""
    means = {
        name: float(np.mean([getattr(s, name) for s in scores])) for name in ("boundary_iou", "mad", "mse")
    }
    return {"miou": total, "miou_per_picture": float(np.mean([s.miou for s in scores]))} | means


def worst(scores: list[Score], count: int) -> list[Score]:
    """By their own mIoU, the worst first."""
    return sorted(scores, key=lambda s: (s.miou, s.key))[:count]


def table(scores: list[Score]) -> str:
    """One line per picture."""
    width = max(len(s.key) for s in scores)
    lines = [f"{'picture':{width}}    mIoU  bIoU    MAD    MSE"]
    lines += [
        f"{s.key:{width}}  {s.miou:6.2f} {s.boundary_iou:5.3f} {s.mad:6.4f} {s.mse:6.4f}" for s in scores
    ]
    return "\n".join(lines)


def contact_sheet(predict: Predict, pairs: list[Pair], scores: list[Score]) -> Picture:
    """The pictures of ``scores`` in a grid, each as image | truth | prediction with its name and mIoU."""
    by_key = {pair.key: pair for pair in pairs}
    cells = []
    for s in scores:
        rgb, matte = by_key[s.key].decode()
        prediction = np.round(predict(rgb) * 255).astype(np.uint8)
        views = [rgb, np.dstack([matte] * 3), np.dstack([prediction] * 3)]
        width = max(1, round(rgb.shape[1] * SHEET_HEIGHT / rgb.shape[0]))
        cell = np.hstack([cv2.resize(view, (width, SHEET_HEIGHT)) for view in views])
        title = np.full((20, cell.shape[1], 3), 255, np.uint8)
        name = s.key.rpartition(" ")[2]
        cv2.putText(title, f"{s.miou:.1f} {name}", (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1)
        cells.append(np.vstack([title, cell]))
    width = max(cell.shape[1] for cell in cells)
    cells = [np.pad(c, ((0, 0), (0, width - c.shape[1]), (0, 0)), constant_values=255) for c in cells]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % SHEET_COLUMNS)
    rows = [np.hstack(cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)]
    return np.vstack(rows).astype(np.uint8, copy=False)


def write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error})") from error


def run(options: argparse.Namespace) -> None:
    """Measures, prints, and writes what was asked for."""
    pairs = read_tar(Path(options.data))
    predict = predictor(
        options.model,
        size=options.size,
        precision=options.precision,
        device=options.device,
        product=options.product,
    )
    scores, total = score(predict, pairs)
    numbers = summary(scores, total)
    what = "Matter.alpha" if options.product else "network"
    print(f"{options.model}, {what}, size {options.size}, {options.precision}, {len(pairs)} pictures")
    print("  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    print(table(worst(scores, WORST_LISTED)))
    if options.json:
        facts = {name: getattr(options, name) for name in ("model", "size", "precision", "product")}
        report = facts | {"data": Path(options.data).name} | numbers
        report["pictures"] = [asdict(s) for s in scores]
        write(Path(options.json), (json.dumps(report, indent=1) + "\n").encode())
    if options.sheet:
        sheet = contact_sheet(predict, pairs, worst(scores, WORST_SHOWN))
        _, packed = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        write(Path(options.sheet), packed.tobytes())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="banet64", help="shipped name, .safetensors or checkpoint.pt")
    parser.add_argument(
        "--data", default=DEFAULT_DATA, help="tar of KEY.jpg with KEY.png (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="longest side (default: %(default)s)")
    parser.add_argument("--product", action="store_true", help="measure Matter.alpha, not the network alone")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="all numbers, per picture too")
    parser.add_argument("--sheet", metavar="FILE.png", help="the worst pictures: image | truth | prediction")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    try:
        run(parse(arguments))
    except BanetStreamError as error:
        print(f"training.evaluate: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""Accuracy of weights on pictures or clips with mattes.

python -m training.evaluate --model banet64 --data ../shared/data/portraits-val.tar
python -m training.evaluate --model runs/banet64/checkpoint.pt --product --size 512 --sheet worst.png
python -m training.evaluate --model banet64 --product --clips --data clip.mp4 --mattes clip-mattes.mp4

--data is a tar of KEY.jpg with KEY.png, the folder of a data set (training/README.md lists the layouts), or a
video, whose mattes are another one. With --clips pictures that follow each other in a set are one clip's
frames (a-001, a-002, ...; b-001 begins another), and dtSSD tells how steady the mattes are.

By default the network is measured alone: the picture with its longer side at --size, enlarged where it is
smaller, goes through the product's engine, and the matte comes back by plain bilinear interpolation. With
--product the whole of ``Matter(model, size=SIZE).alpha(picture)`` is measured: its resampling, which rounds
the network's sides to multiples of 32 and enlarges only very small pictures, its closer look at people who
are small, its second look at the mirrored picture, and its edge-guided upsampling; of clips,
``Matter.stream()``, which looks once and remembers the frame before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from banet_stream import Matter
from banet_stream.engines import TorchEngine, choose_device, choose_precision
from banet_stream.errors import InputError, OutputError, UsageError

from . import checkpoint, metrics, sets, sheet
from .command import command
from .data import to_input
from .pairs import Array, Pair

DEFAULT_DATA = "../shared/data/portraits-val.tar"
DEFAULT_SIZE = 320
WORST_LISTED, WORST_SHOWN = 10, 12

Matte = NDArray[np.float32]  # [H, W] in 0..1


@dataclass(frozen=True)
class Predict:
    """A picture [H, W, 3] uint8 RGB -> its matte [H, W] in 0..1; ``forget`` is called where a clip begins."""

    matte: Callable[[Array], Matte]
    forget: Callable[[], None] = lambda: None

    def __call__(self, rgb: Array) -> Matte:
        return self.matte(rgb)


@dataclass(frozen=True)
class Score:
    """One picture's accuracy by metric, mIoU in percent; dtssd only of a frame that follows another."""

    key: str
    numbers: dict[str, float]

    @property
    def miou(self) -> float:
        return self.numbers["miou"]


def of_module(model: nn.Module, device: str, size: int = DEFAULT_SIZE) -> Predict:
    """A network as it stands, for a run's own log; ``size``: longest side it sees."""
    model.eval()

    @torch.inference_mode()
    def network(image: Tensor) -> Tensor:
        alpha: Tensor = torch.sigmoid(model(image.to(device)).alpha.float())
        return alpha

    return alone(network, size)


def alone(network: Callable[[Tensor], Tensor], size: int) -> Predict:
    """The network without the product around it: normalised [1, 3, h, w] -> [1, 1, h, w] in 0..1."""

    def predict(rgb: Array) -> Matte:
        rows, columns = rgb.shape[:2]
        scale = size / max(rows, columns)
        seen = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(rgb, seen, interpolation=method).astype(np.uint8, copy=False)
        alpha = network(to_input(torch.from_numpy(small[None])))[0, 0].cpu().numpy()
        return cv2.resize(alpha, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(
            np.float32, copy=False
        )

    return Predict(predict)


def predictor(
    model: str,
    *,
    size: int,
    precision: str,
    device: str,
    product: bool,
    clips: bool = False,
    regions: bool = True,
) -> Predict:
    """What to measure, by the command's options.

    Raises:
        WeightsError, DeviceError, UsageError: when one of them can't be had.
    """
    if product:
        return product_of(model, size=size, precision=precision, device=device, clips=clips, regions=regions)
    if size < 1:
        raise UsageError(f"--size: must be 1 or more, got {size}")
    where = choose_device(device)
    network = checkpoint.network(model)
    engine = TorchEngine(network, where, choose_precision(precision, where))  # type: ignore[arg-type]
    return alone(engine, size)


def product_of(model: str, *, size: int, precision: str, device: str, clips: bool, regions: bool) -> Predict:
    """``Matter``; a checkpoint goes there the way it will be shipped, through a .safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        if Path(model).suffix == ".pt":
            exported = Path(folder) / "weights.safetensors"
            checkpoint.write_weights(exported, checkpoint.load(Path(model)))
            model = str(exported)
        try:
            matter = Matter(model, device=device, precision=precision, size=size, regions=regions)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if not clips:
        return Predict(matter.alpha)
    stream = matter.stream()
    return Predict(stream.alpha, stream.reset)


def score(
    predict: Predict,
    pairs: Sequence[Pair],
    *,
    clips: bool = False,
    quick: bool = False,
    skip_broken: bool = False,
) -> tuple[list[Score], float]:
    """Every picture's score, in order, and the set's mIoU.

    Args:
        predict: what is measured.
        pairs: the set.
        clips: the pictures are frames: dtssd too.
        quick: mIoU only.
        skip_broken: leave out, with a line on the error stream, what can't be read.

    Raises:
        InputError: naming the damaged picture; or when none is left.
    """
    total, scores = metrics.MeanIoU(), []
    clip, before = "", None
    for pair in pairs:
        try:
            rgb, matte, weight = pair.decode()
        except InputError as error:
            if not skip_broken:
                raise
            print(f"skipped: {error}", file=sys.stderr, flush=True)
            continue
        if clips and clip_of(pair.key) != clip:
            clip, before = clip_of(pair.key), None
            predict.forget()
        alpha = predict(rgb)
        if weight is not None:  # where the truth is unknown, every matte is right
            alpha = np.where(weight >= 128, alpha, matte / np.float32(255))
        numbers = {"miou": total.add(alpha, matte)}
        if not quick:
            numbers |= {name: metric(alpha, matte) for name, metric in metrics.PER_PICTURE.items()}
        if clips and before is not None and before[0].shape == alpha.shape:
            numbers["dtssd"] = metrics.dtssd(alpha, matte, *before)
        before = (alpha, matte)
        scores.append(Score(pair.key, numbers))
    if not scores:
        raise InputError("no picture of the set could be read")
    return scores, total.value


def clip_of(key: str) -> str:
    """The clip a frame belongs to: its name without the number at the end."""
    return key.rstrip("0123456789")


def summary(scores: Sequence[Score], total: float) -> dict[str, float]:
    """The set's numbers: ``miou`` counts all pixels together, all others are means of the pictures' own."""
    means = {}
    for name in dict.fromkeys(name for s in scores for name in s.numbers):
        means[name] = float(np.mean([s.numbers[name] for s in scores if name in s.numbers]))
    return {"miou": total, "miou_per_picture": means.pop("miou")} | means


def worst(scores: Sequence[Score], count: int) -> list[Score]:
    """By their own mIoU, the worst first."""
    return sorted(scores, key=lambda s: (s.miou, s.key))[:count]


def table(scores: Sequence[Score]) -> str:
    """One line per picture, one column per metric."""
    width = max(len(s.key) for s in scores)
    names = list(dict.fromkeys(name for s in scores for name in s.numbers))
    lines = [f"{'picture':{width}}" + "".join(f" {name:>12}" for name in names)]
    for s in scores:
        cells = [f" {s.numbers[n]:12.4f}" if n in s.numbers else f" {'':12}" for n in names]
        lines.append(f"{s.key:{width}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def contact_sheet(predict: Predict, pairs: Sequence[Pair], scores: Sequence[Score]) -> Array:
    """The pictures of ``scores`` as image | truth | prediction with their mIoU and name."""
    by_key = {pair.key: pair for pair in pairs}
    shown = [(by_key[s.key], f"{s.miou:.1f} {s.key.rpartition(' ')[2]}") for s in scores]
    return sheet.contact_sheet(predict, shown)


def write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from error


def check_folder(path: Path) -> None:
    """Before minutes of measuring.

    Raises:
        OutputError: when nothing can be written there.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path}: can't be written (no folder {path.parent})")


def run(options: argparse.Namespace) -> None:
    """Measures, prints, and writes what was asked for."""
    for name in filter(None, (options.table, options.json, options.sheet)):
        check_folder(Path(name))
    if options.mattes:
        pairs = sets.read_clip(Path(options.data), Path(options.mattes))
    else:
        pairs = sets.read(Path(options.data), split=options.split, skip_broken=options.broken == "skip")
    predict = predictor(
        options.model,
        size=options.size,
        precision=options.precision,
        device=options.device,
        product=options.product,
        clips=options.clips,
        regions=options.regions == "auto",
    )
    scores, total = score(predict, pairs, clips=options.clips, skip_broken=options.broken == "skip")
    numbers = summary(scores, total)
    what = "product" if options.product else "network"
    print(f"{options.model}, {what}, size {options.size}, {options.precision}, {len(scores)} pictures")
    print("  ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    print(table(worst(scores, WORST_LISTED)))
    if options.table:
        write(Path(options.table), (table(scores) + "\n").encode())
    if options.json:
        facts = {
            name: getattr(options, name)
            for name in ("model", "size", "precision", "product", "clips", "regions")
        }
        report = facts | {"data": Path(options.data).name} | numbers
        report["pictures"] = [{"key": s.key} | s.numbers for s in scores]
        write(Path(options.json), (json.dumps(report, indent=1) + "\n").encode())
    if options.sheet:
        shown = contact_sheet(predict, pairs, worst(scores, WORST_SHOWN))
        write(Path(options.sheet), sheet.png(shown))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="banet64", help="shipped name, .safetensors or checkpoint.pt")
    parser.add_argument("--data", default=DEFAULT_DATA, help="tar, folder or video (default: %(default)s)")
    parser.add_argument("--split", default="", help="of a data set that has several, such as train")
    parser.add_argument("--mattes", metavar="VIDEO", help="with a video as --data: its mattes, grey")
    parser.add_argument("--regions", choices=("auto", "off"), default="auto", help="with --product: as there")
    parser.add_argument("--clips", action="store_true", help="the pictures are clips' frames: dtSSD too")
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="longest side (default: %(default)s)")
    parser.add_argument("--product", action="store_true", help="measure Matter, not the network alone")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: %(default)s)")
    parser.add_argument(
        "--broken", choices=("refuse", "skip"), default="refuse", help="pictures that can't be read"
    )
    parser.add_argument("--json", metavar="FILE", help="all numbers, per picture too")
    parser.add_argument("--table", metavar="FILE", help="every picture's numbers as text")
    parser.add_argument("--sheet", metavar="FILE.png", help="the worst pictures: image | truth | prediction")
    options = parser.parse_args(arguments)
    if options.mattes:
        options.clips = True
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("evaluate"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

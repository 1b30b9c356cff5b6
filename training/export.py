"""A checkpoint becomes a model of the package: weights and model card, measured in the same breath.

python -m training.export runs/banet64/checkpoint.pt --name banet64 --data ../shared/data
python -m training.quantise --model banet64 --data ../shared/data
python -m training.export banet64 --onnx banet64.onnx --pt2 banet64.pt2

With --onnx or --pt2 only these graphs are written, of a checkpoint or of a model of the package.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from banet_stream.engines import WEIGHTS, load_network, quantised_path
from banet_stream.errors import UsageError, WeightsError
from banet_stream.matting import DEFAULT_SIZE as PRODUCT_SIZE

from . import card, checkpoint, evaluate, graphs, sets
from .command import command


def export(source: Path, *, name: str, root: Path, folder: Path = WEIGHTS, half: bool = False) -> Path:
    """Writes ``folder``/name.safetensors and name.md; returns the weights' path.

    A graph in 8 bits of earlier weights is removed: ``training.quantise`` makes the new one.

    Args:
        source: a checkpoint of ``training.train``; its averaged weights are taken.
        name: what ``--model`` will call it.
        root: folder with portraits-val.tar, which the card's figures are measured on.
        folder: where shipped weights live.
        half: store the convolutions' kernels in float16, in half the space.

    Raises:
        UsageError, WeightsError, InputError, OutputError: when one of them is not as it must be.
    """
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise UsageError(f"--name {name}: must be small letters, digits, - or _")
    state = checkpoint.load(source)
    checkpoint.refuse_baseline(state["config"])
    state["ancestors"] = checkpoint.lineage(state)
    pairs = sets.read(root / f"{card.VALIDATION}.tar")  # before anything is written
    weights = folder / f"{name}.safetensors"
    for suffix in (".xml", ".bin", ".md"):
        quantised_path(weights).with_suffix(suffix).unlink(missing_ok=True)
    checkpoint.write_weights(weights, state, half=half)
    refuse_difference(source, weights, half=half)
    measured = []
    for product, size in ((False, evaluate.DEFAULT_SIZE), (True, PRODUCT_SIZE)):
        predict = evaluate.predictor(
            str(weights), size=size, precision="float32", device="cpu", product=product
        )
        numbers = evaluate.summary(*evaluate.score(predict, pairs))
        measured.append(card.Measurement(size, product, len(pairs), numbers))
    evaluate.write(weights.with_suffix(".md"), card.text(name, state, measured, half=half).encode())
    return weights


def refuse_difference(source: Path, weights: Path, *, half: bool = False) -> None:
    """The file, read back as the product reads it, must compute what the checkpoint computes, to the bit
    (with ``half``, what it computes with rounded kernels).

    Raises:
        WeightsError: when it does not; the file is removed.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 96, 160, generator=generator)
    rounded = checkpoint.network(source)
    rounded.load_state_dict({k: checkpoint.stored(v, half=half) for k, v in rounded.state_dict().items()})
    with torch.inference_mode():
        wanted, found = rounded(image), load_network(str(weights))(image)
    if not all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True)):
        weights.unlink()
        raise WeightsError(f"{weights}: does not compute what {source} computes; removed")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="checkpoint.pt of training.train; for graphs any model")
    parser.add_argument("--name", default="banet64", help="of the model (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the tars (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=WEIGHTS, help="where to write (default: the package's weights)"
    )
    parser.add_argument("--half", action="store_true", help="kernels in float16: half the space")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="write the network as ONNX")
    parser.add_argument("--pt2", type=Path, metavar="FILE", help="write it for torch.export.load")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    if options.onnx or options.pt2:
        for path, write in ((options.onnx, graphs.write_onnx), (options.pt2, graphs.write_program)):
            if path:
                difference = write(checkpoint.network(options.checkpoint), path)
                print(f"wrote {path}: its alphas differ by {difference:.1e} at most from the network's")
        return
    source = Path(options.checkpoint)
    weights = export(source, name=options.name, root=options.data, folder=options.folder, half=options.half)
    print(weights.with_suffix(".md").read_text())
    print(f"wrote {weights} ({weights.stat().st_size / 2**20:.1f} MiB) and its card beside it")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("export"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

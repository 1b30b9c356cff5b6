"""A model's graph in 8 bits, which OpenVINO computes on a CPU faster than floats.

python -m training.quantise --model banet64 --data ../shared/data

Writes NAME-int8.xml and .bin beside the model's weights, where the product finds them, and NAME-int8.md with
their accuracy beside float32's. What the layers' values range over is measured on samples as training makes
them (portraits alone left patches of grass in full-length videos), by NNCF's post-training quantisation.
Weights keep to 7 of the 8 bits, so that processors without VNNI, whose sums of products hold 16 bits, compute
the same as those with it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path

import openvino

from banet_stream.engines import load_network, quantised_path, weights_path
from banet_stream.errors import OutputError, UsageError
from banet_stream.network import BANet
from banet_stream.openvino_engine import WEIGHTS_KEY, OpenVinoEngine, cached_graph, digest, the_core

from . import evaluate
from .command import command
from .config import Config, set_weights
from .data import Batch, to_input
from .distributed import World
from .pairs import Pair
from .train import open_data

# Ranges are measured on crops growing from the first to the last, accuracy at each as the longer side.
SIDES = (256, 320, 384)
CARD = """\
# {name}, 8 bits

`{name}.safetensors` quantised after training, for OpenVINO on a CPU, by NNCF {version}.
Ranges were measured on {samples} training samples of {sets}.
Written by `python -m training.quantise --model {name}`.

The network alone on the {pictures} pictures of `{validation}`:

| precision | size | mIoU % | boundary IoU | MAD |
|---|---|---|---|---|
{rows}
"""


def quantise(network: BANet, samples: Iterable[Batch]) -> openvino.Model:
    """The network's graph in 8 bits, with open batch and sides.

    Args:
        network: as ``load_network`` gives it.
        samples: what the layers' ranges are measured on.

    Raises:
        UsageError: when NNCF is not installed.
        InputError: when a picture is damaged.
    """
    try:
        import nncf  # noqa: PLC0415  (an extra)
        from nncf.quantization.advanced_parameters import OverflowFix  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(f"quantising needs NNCF ({error}); pip install 'banet-stream[train]'") from error
    seen = [to_input(batch.image).numpy() for batch in samples]
    graph: openvino.Model = nncf.quantize(
        cached_graph(the_core(), network),
        nncf.Dataset(seen),
        subset_size=len(seen),
        preset=nncf.QuantizationPreset.MIXED,  # activations need not lie evenly around zero
        ignored_scope=nncf.IgnoredScope(patterns=[".*enlarge.*"]),  # an interpolation
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )
    graph.set_rt_info(digest(network), WEIGHTS_KEY)
    return graph


def save(graph: openvino.Model, path: Path) -> None:
    try:
        openvino.save_model(graph, path, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: can't be written ({error})") from error


def rows(network: BANet, path: Path, pairs: Sequence[Pair]) -> str:
    """The card's table: both precisions at every size."""
    lines = []
    for precision in ("float32", "int8"):
        engine = OpenVinoEngine(network, precision, quantised=path)
        for side in SIDES:
            n = evaluate.summary(*evaluate.score(evaluate.alone(engine, side), pairs))
            lines.append(
                f"| {precision} | {side} | {n['miou']:.2f} | {n['boundary_iou']:.3f} | {n['mad']:.4f} |"
            )
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.quantise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="banet64", help="shipped model or .safetensors file (default: %(default)s)")
    add("--data", type=Path, default=Path("../shared/data"), help="folder of the sets (default: %(default)s)")
    add("--samples", type=int, default=300, help="to measure ranges on (default: %(default)s)")
    add("--sets", type=set_weights, default=Config().sets, help="as for training.train")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    if options.samples < 1:
        raise UsageError(f"--samples {options.samples}: must be 1 or more")
    weights, network = weights_path(options.model), load_network(options.model)
    config = Config(
        data=str(options.data),
        iterations=options.samples,
        batch=1,
        size_start=SIDES[0],
        size_end=SIDES[-1],
        sets=options.sets,
    )
    samples, validation = open_data(config, range(config.iterations), World())
    graph, path = quantise(network, samples), quantised_path(weights)
    save(graph, path)
    text = CARD.format(
        name=weights.stem,
        version=importlib.metadata.version("nncf"),
        samples=config.iterations,
        sets=", ".join(config.sets),
        pictures=len(validation),
        validation=config.validation,
        rows=rows(network, path, validation),
    )
    evaluate.write(path.with_suffix(".md"), text.encode())
    print(f"{text}\nwrote {path}, its .bin and its card")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves through ``SystemExit`` with the error's exit code."""
    with command("quantise"):
        run(parse(arguments))


if __name__ == "__main__":
    main()

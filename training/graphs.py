"""The network as a graph for other runtimes: ONNX, and PyTorch's exported program; checked when written.

Both take image [N, 3, H, W] float32, sides multiples of 32, normalised ((rgb in 0..1 - MEAN) / STD of
``banet_stream.network``), and give alpha [N, 1, H, W] in 0..1. They hold no operator of this project.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from banet_stream import backends
from banet_stream.errors import OutputError, UsageError, WeightsError
from banet_stream.network import COARSEST_STRIDE, BANet

# What a graph is exported at, and what it is compared at: another batch, other sides.
EXAMPLE = (2, 3, 96, 160)  # of one picture alone the batch would become a constant
CHECKED = ((1, 3, 96, 160), (2, 3, 160, 64), (1, 3, 256, 320))
LARGEST_SIDES = 128  # in strides: 4096 pixels
# Largest difference of alphas: float32 sums in another order.
TOLERANCE = 1e-4


class Alpha(nn.Module):
    """The network's matte alone."""

    def __init__(self, network: BANet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.network(image).alpha)


def trace(network: nn.Module) -> torch.export.ExportedProgram:
    """Batch and sides stay open.

    Raises:
        UsageError: for the baselines, which are not products.
    """
    if not isinstance(network, BANet):
        raise UsageError("only BANet can be exported, not a baseline")
    count = torch.export.Dim("count", min=1, max=64)
    rows, columns = (torch.export.Dim(name, min=1, max=LARGEST_SIDES) for name in ("rows", "columns"))
    shapes = {"image": {0: count, 2: COARSEST_STRIDE * rows, 3: COARSEST_STRIDE * columns}}
    with quiet(), backends.using("reference"), torch.no_grad():
        return torch.export.export(Alpha(network.eval()), (torch.zeros(EXAMPLE),), dynamic_shapes=shapes)


def write_onnx(network: nn.Module, path: Path) -> float:
    """Writes ``path`` and runs it in ONNX Runtime; returns the largest difference of alphas.

    Raises:
        WeightsError: when it computes something else; the file is removed.
        OutputError: when it can't be written.
        UsageError: when the packages for it are not installed.
    """
    program = trace(network)
    try:
        import onnxruntime  # noqa: PLC0415  (an extra)

        with quiet(), torch.no_grad():
            made = torch.onnx.export(
                program, input_names=["image"], output_names=["alpha"], dynamo=True, verbose=False
            )
    except ImportError as error:
        raise UsageError(
            f"--onnx: needs onnx, onnxscript and onnxruntime ({error}); pip install them"
        ) from error
    assert made is not None
    save(path, lambda: made.save(str(path)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return compare(
        network, path, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    )


def write_program(network: nn.Module, path: Path) -> float:
    """As ``write_onnx``, for ``torch.export.load``."""
    program = trace(network)
    save(path, lambda: torch.export.save(program, path))
    loaded = torch.export.load(path).module()
    return compare(network, path, loaded)


def save(path: Path, write: Callable[[], Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: can't be written ({error})") from error


def compare(network: nn.Module, path: Path, graph: Callable[[Tensor], Tensor]) -> float:
    """The largest difference of the graph's alphas from the network's, over several sizes."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for shape in CHECKED:
        image = torch.randn(shape, generator=generator)
        with torch.no_grad():
            wanted = torch.sigmoid(network.eval()(image).alpha)
            found = graph(image)
        largest = max(largest, float(np.abs(found.numpy() - wanted.numpy()).max()))
    if not largest <= TOLERANCE:
        path.unlink()
        raise WeightsError(f"{path}: its alphas differ by {largest:g} from the network's; removed")
    return largest


@contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporter warns of its own deprecated insides, and of packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

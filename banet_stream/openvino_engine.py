"""The network in OpenVINO, on a CPU faster than in PyTorch: `banet-stream bench CLIP --engine ...` tells.

In 8 bits it computes the graph that lies beside a model's weights. For float32 and bfloat16 the graph is
made from the network itself, once: that takes seconds, so it is kept in the user's cache folder and read from
there afterwards. So is what OpenVINO makes of a graph for this CPU. One compiled graph serves every size.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from . import backends
from .errors import DeviceError, MatteError, WeightsError, first_line
from .network import ATTENTION_STRIDE, COARSEST_STRIDE, BANet, upsample

# OpenVINO reports its use to its makers through this package where it can be imported, and does without where
# it can't. Nothing here asks an outside host for anything (a test watches).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

log = logging.getLogger(__name__)

# int8: where the graph says so; the rest of it runs faster in float32 than in bfloat16.
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
# Part of what a graph is known by: another number where what is made here changes.
GRAPH_VERSION = 2
# Where a graph in 8 bits says what it was made from: a digest of that.
WEIGHTS_KEY = ["banet_stream", "weights"]


class OpenVinoEngine:
    """Like ``engines.TorchEngine``, on the CPU.

    Args:
        network: in evaluation mode or not; it is not kept.
        precision: ``float32``, ``bfloat16`` or ``int8``.
        threads: for the network; 0: as many as PyTorch would take.
        quantised: where the network's graph in 8 bits lies, for ``int8``.

    Raises:
        DeviceError: when this CPU or this model has no such precision.
        WeightsError: when the graph in 8 bits is damaged or another network's.
    """

    name = f"openvino {openvino.__version__.split('-')[0]}"
    device = torch.device("cpu")

    def __init__(
        self, network: BANet, precision: str, *, threads: int = 0, quantised: Path | None = None
    ) -> None:
        self.precision = precision
        able = the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and "BF16" not in able:
            raise DeviceError("--precision bfloat16: this CPU has no instructions for it; use float32")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        if precision == "int8":
            graph = quantised_graph(the_core(), network, quantised)
        else:
            graph = cached_graph(the_core(), network)
        self._stride = network.detail_stride
        self._request = compiled(the_core(), graph, options).create_infer_request()
        self._lock = threading.Lock()  # a request serves one caller at a time, and holds what it gave

    def __call__(self, image: Tensor) -> Tensor:
        """[N, 3, h, w] float32, normalised -> the matte [N, 1, h, w] float32 in 0..1.

        Raises:
            MatteError: when the network fails or gives no numbers.
        """
        return self._matte(self._logits(image)[0], image)

    def outputs(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As when called, and the boundary attention map [N, 1, h, w] float32 in 0..1."""
        matte, attention = self._logits(image)
        return self._matte(matte, image), enlarged_sigmoid(attention, ATTENTION_STRIDE, image)

    def _matte(self, logits: Tensor, image: Tensor) -> Tensor:
        # Before the sigmoid: of an infinity it makes 1, "all of it is person", and the room would show.
        if not bool(logits.isfinite().all()):
            raise MatteError(f"the network gave no numbers in {self.precision}; try --precision float32")
        return enlarged_sigmoid(logits, self._stride, image)

    def _logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the graph gives: see ``Outputs``."""
        padded = pad_to_stride(image.detach().cpu().float().numpy())
        try:
            with self._lock:
                found = self._request.infer({0: padded}, share_inputs=True)
                matte, attention = (torch.from_numpy(found[i].copy()) for i in range(2))
        except RuntimeError as error:
            raise MatteError(
                f"the network failed in OpenVINO ({first_line(error)}); try --engine torch"
            ) from error
        return matte, attention


@cache
def the_core() -> openvino.Core:
    """One for the process: each has plugins and threads of its own."""
    return openvino.Core()


def compiled(core: openvino.Core, graph: openvino.Model, options: dict[str, Any]) -> openvino.CompiledModel:
    """The graph made for this CPU. OpenVINO keeps that in the cache folder too, and makes anew what it can't
    read there: a start takes a third of a second less."""
    try:
        return core.compile_model(graph, "CPU", options | {"CACHE_DIR": str(cache_folder() / "compiled")})
    except RuntimeError as error:  # most likely the folder
        log.info("not from the cache (%s): compiled anew", str(error).splitlines()[-1])
    return core.compile_model(graph, "CPU", options)


def pad_to_stride(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 3, h, w] -> the same with sides that are multiples of 32, as the network itself pads."""
    bottom, right = (-side % COARSEST_STRIDE for side in image.shape[2:])
    if bottom or right:
        image = np.pad(image, ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge")
    return np.ascontiguousarray(image)


# --- the graph -------------------------------------------------------------------------------------


class Outputs(nn.Module):
    """What the engine needs of the network, in the form that takes the least time there.

    OpenVINO is slow at enlarging single channels, so the matte's logits come as small as the network has
    them, and the attention map is enlarged by ``Enlarge``.
    """

    def __init__(self, network: BANet) -> None:
        super().__init__()
        self.network = network
        self.enlarge = Enlarge(ATTENTION_STRIDE)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, h, w] -> logits: the matte's [N, 1, h/stride, w/stride], the map's [N, 1, h/4, w/4]."""
        net = self.network
        semantic = net.semantic(image)
        attention = net.project(semantic) / net.temperature
        guided = torch.cat([image, torch.sigmoid(self.enlarge(attention))], 1)
        return net.matte(semantic, guided), attention


class Enlarge(nn.Module):
    """``network.upsample`` of one channel by an even factor, as a transposed convolution."""

    kernel: Tensor  # [1, 1, 2 * factor, 2 * factor]

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        line = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()  # a tent
        self.register_buffer("kernel", torch.outer(line, line)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, h, w] -> [N, 1, factor h, factor w]."""
        repeated = F.pad(x, (1, 1, 1, 1), mode="replicate")  # beyond its edges, as interpolation takes them
        cut = 3 * self.factor // 2
        return F.conv_transpose2d(repeated, self.kernel, stride=self.factor, padding=cut)


def enlarged_sigmoid(logits: Tensor, factor: int, image: Tensor) -> Tensor:
    """Logits [N, 1, h / factor, w / factor] of a padded image [N, 3, H, W] -> [N, 1, H, W] in 0..1."""
    height, width = image.shape[2:]
    return upsample(logits, factor).sigmoid_()[..., :height, :width]


def cached_graph(core: openvino.Core, network: BANet) -> openvino.Model:
    """The network's graph, from the cache folder if it is there, else made and put there."""
    path = cache_folder() / f"{fingerprint(network)}.xml"
    if path.exists():
        try:
            return core.read_model(path)
        except RuntimeError as error:  # cut off, or from another machine
            log.info("%s can't be read (%s): made anew", path, str(error).splitlines()[0])
    graph = make_graph(network)
    try:
        keep(graph, path)
    except (OSError, RuntimeError) as error:
        log.info("%s can't be kept (%s): the next start takes seconds longer", path, error)
    return graph


def quantised_graph(core: openvino.Core, network: BANet, path: Path | None) -> openvino.Model:
    """What ``training.quantise`` made of this very network."""
    if path is None or not path.exists():
        where = f" ({path.name} is not beside its weights)" if path else ""
        raise DeviceError(
            f"--precision int8: this model has no graph in 8 bits{where}; leave --precision out"
        )
    try:
        graph = core.read_model(path)
        made_from = graph.get_rt_info(WEIGHTS_KEY).astype(str) if graph.has_rt_info(WEIGHTS_KEY) else ""
    except RuntimeError as error:
        raise WeightsError(f"{path}: damaged ({str(error).splitlines()[0]}); install it again") from error
    if made_from != digest(network):
        raise WeightsError(
            f"{path}: made from other weights than the model's, or by another version; remove it, or run "
            "python -m training.quantise"
        )
    return graph


def make_graph(network: BANet) -> openvino.Model:
    """Traced by PyTorch, with open batch and sides. Without ``openvino.convert_model``, which can report its
    use to OpenVINO's makers."""
    from openvino.frontend import FrontEndManager  # noqa: PLC0415  (seldom needed, slow to import)
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415

    from .engines import fold_batch_norm  # noqa: PLC0415  (it imports this module)

    outputs = Outputs(copy.deepcopy(network).eval())
    example = torch.zeros(1, 3, 2 * COARSEST_STRIDE, 3 * COARSEST_STRIDE)
    with warnings.catch_warnings(), backends.using("reference"), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing's, of the checks that don't depend on values
        folded = fold_batch_norm(outputs)
        traced = torch.jit.trace(folded, example)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # must outlive what is loaded from it
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph: Any = frontend.convert(frontend.load(decoder))
    graph.reshape([-1, 3, -1, -1])
    return graph


def keep(graph: openvino.Model, path: Path) -> None:
    """Both files appear whole or not at all, the .xml, which is looked for, last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    try:
        openvino.save_model(graph, folder / path.name, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            (folder / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cache_folder() -> Path:
    """``$BANET_CACHE``, or the platform's usual place."""
    if chosen := os.environ.get("BANET_CACHE"):
        return Path(chosen)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "banet-stream"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "banet-stream"


def fingerprint(network: BANet) -> str:
    """Of all that the graph depends on."""
    facts = repr((openvino.__version__, digest(network)))
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def digest(network: BANet) -> str:
    """Of all that a network computes with, and how its graph is made."""
    facts = (GRAPH_VERSION, network.channels, network.detail_stride, network.temperature)
    found = hashlib.sha256(repr(facts).encode())
    for name, values in network.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(values.detach().cpu().numpy()).tobytes())
    return found.hexdigest()

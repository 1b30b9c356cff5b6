"""Where the network runs: device, precision, and the network prepared for it."""

from __future__ import annotations

import copy
import logging
import platform
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .errors import DeviceError, MatteError, WeightsError, first_line
from .network import BANet, BANetOutput

log = logging.getLogger(__name__)

ENGINES = ("auto", "openvino", "torch")
WEIGHTS = Path(__file__).parent / "weights"
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}  # PyTorch's
INT8 = "int8"  # OpenVINO's alone, of models that have a graph in it beside their weights
X86 = ("x86_64", "AMD64")  # where 8 bits were measured to be faster


class Engine(Protocol):
    """The network, prepared for where it runs."""

    name: str
    device: torch.device
    precision: str

    def __call__(self, image: Tensor) -> Tensor:
        """[N, 3, h, w] float32, normalised -> the matte [N, 1, h, w] float32 in 0..1 on the engine's device.

        Raises:
            MatteError: when the network fails or gives no numbers.
        """

    def outputs(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As when called, and the boundary attention map [N, 1, h, w] float32 in 0..1."""


def load_engine(
    model: str, *, device: str = "auto", precision: str = "auto", engine: str = "auto", threads: int = 0
) -> Engine:
    """The network of ``model``, ready to run. Options as in :class:`banet_stream.Matter`.

    Raises:
        DeviceError, WeightsError: when one of these can't be had.
    """
    if engine not in ENGINES:
        raise DeviceError(f"--engine {engine}: must be {', '.join(ENGINES)}")
    where = choose_device(device)
    network = load_network(model)
    if where.type == "cuda" and engine == "openvino":
        raise DeviceError("--engine openvino: runs on the CPU; add --device cpu, or leave --engine out")
    if where.type == "cuda":
        from .cuda_engine import CudaEngine  # noqa: PLC0415  (it imports this module)

        return CudaEngine(network, where, choose_precision(precision, where))
    if engine == "torch":
        return TorchEngine(network, where, choose_precision(precision, where))
    try:
        from .openvino_engine import OpenVinoEngine  # noqa: PLC0415  (may not be there)
    except ImportError as error:
        if engine == "openvino":
            raise DeviceError(f"--engine openvino: {error}; pip install openvino") from error
        log.warning(
            "OpenVINO is not here (%s): the network runs in PyTorch, slower; pip install openvino",
            error,
        )
        return TorchEngine(network, where, choose_precision(precision, where))
    quantised = quantised_path(weights_path(model))
    if precision == "auto" and quantised.exists() and platform.machine() in X86:
        precision = INT8
    if precision == INT8:
        return OpenVinoEngine(network, INT8, threads=threads, quantised=quantised)
    return OpenVinoEngine(network, choose_precision(precision, where), threads=threads)


class TorchEngine:
    """The network in PyTorch with batch norms folded in and channels-last memory.

    Args:
        network: in evaluation mode or not; a prepared copy is kept.
        device: as ``choose_device`` returns it.
        precision: as ``choose_precision`` returns it.

    Raises:
        DeviceError: when a GPU does not take the network: it is full, or another process's alone.
    """

    name = "torch"

    def __init__(self, network: BANet, device: torch.device, precision: str) -> None:
        self.precision = precision
        self.dtype = PRECISIONS[precision]
        folded = fold_batch_norm(copy.deepcopy(network).eval())
        try:
            self.network = folded.to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            if device.type != "cuda":
                raise
            raise DeviceError(
                f"{device} does not take the network ({first_line(error)}); use --device cpu"
            ) from error
        # "cuda" alone would be another GPU in a thread that has another current one.
        self.device = next(self.network.parameters()).device

    def __call__(self, image: Tensor) -> Tensor:
        """[N, 3, h, w] float32, normalised -> the matte [N, 1, h, w] float32 in 0..1 on the same device.

        Raises:
            MatteError: when the network fails or gives no numbers.
        """
        return self.run(image)[0]

    def outputs(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As when called, and the boundary attention map [N, 1, h, w] float32 in 0..1."""
        matte, output = self.run(image)
        return matte, output.boundary.float()

    def forward(self, image: Tensor) -> BANetOutput:
        """The network, on an image of its own type and memory format."""
        output: BANetOutput = self.network(image)
        return output

    @torch.inference_mode()
    def run(self, image: Tensor) -> tuple[Tensor, BANetOutput]:
        """The matte, and all that the network gave: a baseline has no boundary attention map."""
        try:
            image = image.to(self.device, self.dtype, memory_format=torch.channels_last)
            output = self.forward(image)
            logits = output.alpha.float()
        except (RuntimeError, MemoryError) as error:
            raise MatteError(
                f"the network failed on {self.device} ({first_line(error)}); try --device cpu"
            ) from error
        # Before the sigmoid: of an infinity it makes 1, "all of it is person", and the room would show.
        if not bool(logits.isfinite().all()):
            raise MatteError(f"the network gave no numbers in {self.precision}; try --precision float32")
        return torch.sigmoid(logits), output


def choose_device(wanted: str) -> torch.device:
    """``auto``: CUDA when it works here, else the CPU.

    Raises:
        DeviceError: when the device asked for is not here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {wanted}: must be auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if torch.version.cuda is None:
            raise DeviceError(
                f"--device {wanted}: this PyTorch ({torch.__version__}) is built without CUDA; "
                "install its CUDA build (README, 'CPU or GPU') or use --device cpu"
            )
        if not torch.cuda.is_available():
            raise DeviceError(
                f"--device {wanted}: PyTorch finds no usable CUDA device (NVIDIA GPU and driver); "
                "use --device cpu"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(
                f"--device {wanted}: there are {torch.cuda.device_count()} CUDA devices, counted from 0"
            )
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """``auto``: float16 on CUDA; on the CPU bfloat16 where it has instructions for it, else float32.

    Raises:
        DeviceError: when it is none of these, or not for this device.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return "float16"
        return "bfloat16" if cpu_has_bfloat16() else "float32"
    if wanted == INT8:
        raise DeviceError("--precision int8: only OpenVINO computes in it, on the CPU; leave --precision out")
    if wanted not in PRECISIONS:
        raise DeviceError(f"--precision {wanted}: must be auto, {', '.join(PRECISIONS)} or {INT8}")
    if wanted == "float16" and device.type == "cpu":
        raise DeviceError("--precision float16: too slow on a CPU to be meant; use bfloat16 or float32")
    return wanted


def cpu_has_bfloat16() -> bool:
    """AVX-512 BF16 or AMX; without them PyTorch emulates, slower than float32."""
    flags = torch.backends.cpu.get_cpu_capability()
    if not flags.startswith("AVX512"):
        return False
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in words or "amx_bf16" in words


def weights_path(model: str) -> Path:
    """Of a shipped model by name (``banet64``) or a .safetensors file by path.

    Raises:
        WeightsError: when there is no such model.
    """
    path = WEIGHTS / f"{model}.safetensors"
    if not path.exists():
        path = Path(model)
    if path.suffix != ".safetensors" or not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise WeightsError(f"--model {model}: neither a shipped model ({shipped}) nor a .safetensors file")
    return path


def quantised_path(weights: Path) -> Path:
    """Where the graph in 8 bits of a model lies, if it has one (``training.quantise`` makes it)."""
    return weights.with_name(f"{weights.stem}-int8.xml")


def load_network(model: str) -> BANet:
    """A model by name or path, as ``weights_path`` finds it.

    Raises:
        WeightsError: when there is no such model, or the file is not one of BANet's.
    """
    path = weights_path(model)
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        network = BANet(
            int(facts["channels"]),
            detail_stride=int(facts["detail_stride"]),
            temperature=float(facts["temperature"]),
            context=int(facts.get("context", 0)),
        )
        network.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"--model {model}: {path.name} is damaged or not BANet weights ({reason})"
        ) from error
    return network.eval()


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Merges every batch norm into the convolution before it; changes and returns ``module``."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Sequential):
            layers: list[nn.Module] = []
            for layer in child:
                if isinstance(layer, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
                    layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
                else:
                    layers.append(fold_batch_norm(layer))
            setattr(module, name, nn.Sequential(*layers))
        else:
            fold_batch_norm(child)
    return module

"""Which implementation serves each operator: compiled, CuPy or the reference.

    compiled   the extension `banet_stream._C`, through PyTorch's dispatcher (compiled.py)
    cupy       CUDA tensors only: the same kernels, built by NVRTC when first used (cupy_kernels.py);
               for a machine with a GPU and no CUDA toolkit
    reference  plain PyTorch (reference.py)

The first that is here wins, by operator and device. BANET_BACKEND, read when the package is imported,
forces one; what it can't serve is a DeviceError, not another backend.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import reference
from .errors import DeviceError, first_line

BACKENDS = ("compiled", "cupy", "reference")
OPERATORS = (
    "boundary_attention",
    "composite",
    "fade_islands",
    "fill_holes",
    "frame_to_input",
    "guided_filter",
    "masked_blur",
    "refine_loss",
    "sobel_gradient",
    "steady_alpha",
    "upsample_alpha",
)
# Those that bring tensors of other devices to the CPU and take them back.
ON_CPU = ("fade_islands", "fill_holes")

Operator = Callable[..., Any]


class Table:
    """What serves (operator, kind of device), and why not something faster."""

    def __init__(self, forced: str) -> None:
        self.forced = forced
        self.choice: dict[tuple[str, str], tuple[str, Operator]] = {}
        self.reasons: dict[str, str] = {}
        for backend in BACKENDS:
            if forced in ("", backend) and backend != "reference":
                self.add(backend)
        if forced in ("", "reference"):
            for name in OPERATORS:
                for kind in ("cpu", "cuda"):
                    self.choice.setdefault((name, kind), ("reference", getattr(reference, name)))

    def add(self, backend: str) -> None:
        if all((name, "cuda") in self.choice for name in OPERATORS if name not in ON_CPU):
            return  # nothing is left to serve, and importing CuPy takes a while
        try:
            module = load_compiled() if backend == "compiled" else load_cupy()
        except ImportError as error:
            self.reasons[backend] = str(error)
            return
        for kind in ("cpu", "cuda"):
            for name in OPERATORS:
                if (name, kind) not in self.choice and module.serves(name, kind):
                    self.choice[name, kind] = (backend, getattr(module, name))


def load_compiled() -> Any:
    # find_spec first: an extension that is there but can't be loaded (another torch, another glibc) says so.
    if importlib.util.find_spec("banet_stream._C") is None:
        raise ImportError("the extension is not built: install with a C++ compiler and --no-build-isolation")
    try:
        importlib.import_module("banet_stream._C")
    except ImportError as error:
        raise ImportError(f"the extension is there but does not load: {error}") from error
    return importlib.import_module("banet_stream.compiled")


def load_cupy() -> Any:
    if not torch.cuda.is_available():
        raise ImportError("torch sees no CUDA device")
    if importlib.util.find_spec("cupy") is None:
        raise ImportError("cupy is not installed")
    try:
        importlib.import_module("cupy")
    except Exception as error:  # CUDA's libraries are missing, or NumPy is another one
        reason = first_line(error.__cause__ or error)  # its own text is a banner over what is missing
        raise ImportError(f"cupy is there but does not load: {reason}") from error
    return importlib.import_module("banet_stream.cupy_kernels")


def requested() -> str:
    return os.environ.get("BANET_BACKEND", "")


_table = Table(requested())
if not _table.forced and "compiled" in _table.reasons:
    # On the error stream even where nothing sets logging up.
    logging.getLogger("banet_stream").warning(
        "the compiled operators are not here (%s): their references run instead, many times slower",
        _table.reasons["compiled"],
    )


def find(operator: str, device: torch.device) -> Operator:
    """The function that serves ``operator`` on ``device``; it takes what ``reference``'s takes."""
    served = _table.choice.get((operator, device.type))
    if served is None:
        raise DeviceError(missing(operator, device.type))
    return served[1]


def has_kernel(operator: str, device: torch.device) -> bool:
    """Whether something faster than the reference serves ``operator`` there."""
    served = _table.choice.get((operator, device.type))
    return served is not None and served[0] != "reference"


def leave_to_reference(operator: str, kind: str) -> None:
    """From now on, in the whole process: for a kernel that turned out not to work there.

    Raises:
        DeviceError: when its backend is forced.
    """
    if _table.forced:
        raise DeviceError(f"{operator}: BANET_BACKEND={_table.forced}, but it does not work on {kind}")
    _table.choice[operator, kind] = ("reference", getattr(reference, operator))


def missing(operator: str, kind: str) -> str:
    if _table.forced and _table.forced not in BACKENDS:
        return f"BANET_BACKEND must be one of {', '.join(BACKENDS)}, got {_table.forced}"
    if _table.forced:
        why = _table.reasons.get(_table.forced, f"it has no {operator} for {kind} tensors")
        return f"{operator}: BANET_BACKEND={_table.forced}, but {why}"
    return f"{operator}: no implementation for tensors on {kind}"


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Forces a backend for a while, in the whole process: for tests, benchmarks and exporters.

    A graph runtime that knows no custom operators is given the network as exported under
    ``using("reference")``.
    """
    global _table  # noqa: PLW0603
    if backend not in BACKENDS:
        raise DeviceError(f"using: backend must be one of {', '.join(BACKENDS)}, got {backend}")
    before = _table
    _table = Table(backend)
    try:
        yield
    finally:
        _table = before


def describe() -> dict[str, str]:
    """Operator -> what serves it on each kind of device, and why not something faster, for ``doctor``."""
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    lines = {}
    for name in OPERATORS:
        parts = [describe_one(name, kind) for kind in kinds]
        lines[name] = "; ".join(f"{kind}: {part}" for kind, part in zip(kinds, parts, strict=True))
    return lines


def describe_one(operator: str, kind: str) -> str:
    if kind != "cpu" and operator in ON_CPU:
        return "on the CPU"
    served = _table.choice.get((operator, kind))
    if served is None:
        return f"nothing ({missing(operator, kind)})"
    backend = served[0]
    if _table.forced:
        return f"{backend} (BANET_BACKEND)"
    faster = [b for b in BACKENDS[: BACKENDS.index(backend)] if b in _table.reasons]
    if kind == "cpu":
        faster = [b for b in faster if b != "cupy"]  # never serves the CPU
    return backend + "".join(f", not {b}: {_table.reasons[b]}" for b in faster)

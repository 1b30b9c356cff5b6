"""The CUDA kernels of csrc/*.cu without a CUDA toolkit: NVRTC compiles them when they are first used.

Here stand the launches that the .cu files' own launchers make, for the operators of the video path and of the
network; the training-only ones (sobel_gradient, refine_loss) run on their references. No GPU has run this
yet: the tests compile every kernel with NVRTC, and run these launches with the kernels compiled for the CPU.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import reference
from .kernel_options import alpha_options, colour_options, filter_options, is_channels_last, packed
from .reference import LUMA_WEIGHTS, TINY, YuvScale

THREADS = 256
SERVED = (
    "boundary_attention",
    "composite",
    "frame_to_input",
    "guided_filter",
    "masked_blur",
    "steady_alpha",
    "upsample_alpha",
)
KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}
SCALARS = {"int": np.int32, "int64_t": np.int64, "bool": np.bool_, "float": np.float32, "double": np.float64}


def serves(operator: str, kind: str) -> bool:
    return kind == "cuda" and operator in SERVED


def csrc() -> Path:
    """Beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / "csrc"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "csrc"


@lru_cache
def source_of(name: str) -> str:
    return (csrc() / f"{name}.cu").read_text()


@lru_cache
def signature(name: str, kernel: str) -> list[Any]:
    """The kernel's argument types, from its source: a wrongly sized scalar would shift all after it."""
    text = re.sub(r"//[^\n]*", "", source_of(name))
    found = re.search(rf"__global__ void {kernel}\(([^)]*)\)", text)
    assert found is not None, kernel
    return [np.uint64 if "*" in p else SCALARS[p.split()[0]] for p in found[1].split(",")]


def typed(name: str, kernel: str, arguments: tuple[Any, ...]) -> list[Any]:
    types = signature(name, kernel)
    assert len(types) == len(arguments), (kernel, len(types), len(arguments))
    values = (a.data_ptr() if isinstance(a, Tensor) else 0 if a is None else a for a in arguments)
    return [kind(value) for kind, value in zip(types, values, strict=True)]


@lru_cache
def options() -> tuple[str, ...]:
    """For NVRTC. CuPy keeps what it compiled by source and options: the headers must be among them."""
    headers = b"".join(path.read_bytes() for path in sorted(csrc().glob("*.h")))
    digest = hashlib.sha256(headers).hexdigest()[:12]
    return "-std=c++17", f"-I{csrc()}", f"-DBANET_HEADERS={digest}"


@lru_cache
def module(name: str, device: int) -> Any:
    import cupy  # noqa: PLC0415

    with cupy.cuda.Device(device):
        return cupy.RawModule(code=source_of(name), options=options())


def launch_cupy(name: str, kernel: str, items: int, like: Tensor, *arguments: Any) -> None:
    """One thread per item, on torch's current stream of the tensor's device.

    Raises:
        RuntimeError: when CuPy fails, as torch's operators do. Its own errors have no common kind: that of a
            kernel that does not compile is an Exception, no more.
    """
    if items == 0:
        return
    device, values = like.device.index, typed(name, kernel, arguments)
    stream = torch.cuda.current_stream(like.device).cuda_stream
    try:
        import cupy  # noqa: PLC0415

        with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
            function = module(name, device).get_function(kernel)
            function((-(-items // THREADS),), (THREADS,), values)
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise RuntimeError(f"CuPy fails on {kernel}: {text}") from error


launch: Callable[..., None] = launch_cupy


# --- boundary attention ------------------------------------------------------------------------


def boundary_attention(logits: Tensor, image: Tensor, *, temperature: float) -> Tensor:
    return _BoundaryAttention.apply(logits, image, temperature)  # type: ignore[no-untyped-call]


class _BoundaryAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, image: Tensor, temperature: float) -> Tensor:
        batch, _, height, width = image.shape
        layout = torch.channels_last if is_channels_last(image) else torch.contiguous_format
        shape = (batch, 4, height, width)
        out = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=layout)
        low = logits.stride()
        launch(
            "boundary_attention", "boundary_attention_kernel", batch * height * width, image,
            out, *out.stride(), image, *image.stride(), KINDS[image.dtype],
            logits, low[0], low[2], low[3], KINDS[logits.dtype],
            batch * height * width, height, width, *logits.shape[2:], temperature,
        )  # fmt: skip
        ctx.save_for_backward(out)  # not a view of it: that would be a circle
        ctx.size, ctx.dtype, ctx.temperature = logits.shape[2:], logits.dtype, temperature
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (saved,) = ctx.saved_tensors
        value, last = saved[:, 3:], grad[:, 3:]
        out = torch.empty((grad.shape[0], 1, *ctx.size), dtype=ctx.dtype, device=grad.device)
        launch(
            "boundary_attention", "boundary_attention_backward_kernel", out.numel(), grad,
            out, KINDS[ctx.dtype], last, last.stride(0), last.stride(2), last.stride(3),
            value, value.stride(0), value.stride(2), value.stride(3), KINDS[grad.dtype],
            out.numel(), *grad.shape[2:], *ctx.size, ctx.temperature,
        )  # fmt: skip
        return out, grad[:, :3], None


# --- frames ----------------------------------------------------------------------------------------


def frame_to_input(
    planes: list[Tensor],
    *,
    size: tuple[int, int],
    matrix: str,
    full_range: bool,
    depth: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    y, u, v = reference.planar(planes)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty((1, 3, *size), dtype=dtype, device=y.device, memory_format=layout)
    launch(
        "frame_to_input", "frame_to_input_kernel", size[0] * size[1], y,
        out, KINDS[dtype], channels_last, *size, y, *y.stride(), *y.shape,
        u, *u.stride(), v, *v.stride(), *u.shape, depth != 8,
        *LUMA_WEIGHTS[matrix], *YuvScale.of(full_range, depth), *mean, *std,
    )  # fmt: skip
    return out


def guided_filter(alpha: Tensor, image: Tensor) -> Tensor:
    radius, epsilon, least_variance, low, high, reach, unsure, tiny = filter_options()
    name, size, pixels = "guided_filter", tuple(alpha.shape), alpha.numel()
    fits, out = alpha.new_empty((6, *size)), alpha.new_empty(size)
    both = (alpha, *alpha.stride(), image, *image.stride(), radius, reach, unsure)
    launch(name, "guided_fit_kernel", pixels, alpha, fits, *size, *both, epsilon, least_variance, tiny)
    launch(name, "guided_follow_kernel", pixels, alpha, out, *size, fits, *both, low, high, tiny)
    return out


def steady_alpha(alpha: Tensor, previous: Tensor, *, certain: float, steady: float) -> Tensor:
    alpha, previous = alpha.contiguous(), previous.contiguous()
    out, pixels = torch.empty_like(alpha), alpha.numel()
    launch(
        "steady_alpha", "steady_alpha_kernel", pixels, alpha, out, alpha, previous, pixels, certain, steady
    )
    return out


def upsample_alpha(alpha: Tensor, luma: Tensor, *, depth: int, upsampling: str) -> Tensor:
    guided, radius, epsilon, floor, ceiling = alpha_options(upsampling)
    name, size, wide, peak = "upsample_alpha", tuple(alpha.shape), depth != 8, 2**depth - 1
    clean, small, fits, means = alpha.new_empty((6, *size)).split_with_sizes([1, 1, 2, 2])
    launch(
        name, "alpha_small_kernel", alpha.numel(), luma,
        clean, small, *size, alpha, *alpha.stride(), luma, *luma.stride(), *luma.shape, wide,
    )  # fmt: skip
    launch(
        name,
        "alpha_fit_kernel",
        alpha.numel(),
        luma,
        fits,
        clean,
        small,
        peak,
        *size,
        guided,
        radius,
        epsilon,
    )
    if guided:
        launch(name, "alpha_mean_kernel", alpha.numel(), luma, means, fits, *size, radius)
    out = alpha.new_empty(luma.shape)
    launch(
        name, "alpha_full_kernel", out.numel(), luma,
        out, *luma.shape, means if guided else fits, *size, luma, *luma.stride(), wide, peak, floor, ceiling,
    )  # fmt: skip
    return out


def composite(
    planes: list[Tensor],
    alpha: Tensor,
    background: list[Tensor],
    *,
    depth: int,
    subsampling: tuple[int, int],
    upsampling: str,
    decontaminate: bool,
    light_wrap: float,
) -> list[Tensor]:
    guided, radius, epsilon, floor, ceiling = alpha_options(upsampling)
    height, width, reach = colour_options(alpha)
    front, back = [packed(p) for p in planes], [packed(p) for p in background]
    name, size, peak = "composite", tuple(alpha.shape), 2**depth - 1
    small, fits, means = alpha.new_empty((6, *size)).split_with_sizes([2, 2, 2])
    rough, sums, colours = alpha.new_empty((27, height, width)).split_with_sizes([7, 11, 9])
    sizes, wide = (*front[0].shape, *front[1].shape), depth != 8
    front_rows, back_rows = ([x for p in group for x in (p, p.stride(0))] for group in (front, back))
    launch(
        name, "composite_small_kernel", alpha.numel(), alpha,
        small, *size, alpha, *alpha.stride(), *front_rows[:2], *sizes[:2], wide,
    )  # fmt: skip
    launch(
        name, "composite_fit_kernel", alpha.numel(), alpha, fits, small, peak, *size, guided, radius, epsilon
    )
    if guided:
        launch(name, "composite_mean_kernel", alpha.numel(), alpha, means, fits, *size, radius)
    if decontaminate or light_wrap:
        pixels, channels = height * width, 7 if light_wrap else 4
        launch(
            name, "composite_rough_kernel", pixels, alpha,
            rough, channels, height, width, small, *size, *front_rows, *back_rows, *sizes, wide,
        )  # fmt: skip
        shape = (channels, height, width, reach)
        launch(name, "composite_rows_kernel", pixels, alpha, sums, rough, *shape)
        launch(name, "composite_columns_kernel", pixels, alpha, colours, sums, rough, *shape, TINY)
    out = [p.new_empty(p.shape) for p in front]
    launch(
        name, "composite_full_kernel", out[1].numel(), alpha,
        *out, *front_rows, *back_rows, *sizes, *subsampling,
        means if guided else fits, colours, *size, height, width, wide, decontaminate,
        peak, floor, ceiling, light_wrap,
    )  # fmt: skip
    return out


def masked_blur(planes: list[Tensor], alpha: Tensor, *, sigma: float, depth: int) -> list[Tensor]:
    name, alpha, blurred = "masked_blur", alpha.contiguous(), []
    for plane in planes:
        size, own_sigma = reference.blur_size(plane, planes[0], sigma)
        weights, across, mean = alpha.new_empty((5, *size)).split_with_sizes([2, 2, 1])
        pixels = size[0] * size[1]
        launch(
            name, "blur_small_kernel", pixels, alpha,
            weights, *size, plane, *plane.stride(), *plane.shape, depth != 8, alpha, *alpha.shape, TINY,
        )  # fmt: skip
        launch(name, "blur_rows_kernel", pixels, alpha, across, weights, *size, own_sigma)
        launch(name, "blur_columns_kernel", pixels, alpha, mean, across, *size, own_sigma)
        out = plane.new_empty(plane.shape)
        launch(
            name, "blur_full_kernel", out.numel(), alpha,
            out, *plane.shape, mean, *size, depth != 8, 2**depth - 1,
        )  # fmt: skip
        blurred.append(out)
    return blurred

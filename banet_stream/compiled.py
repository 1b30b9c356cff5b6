"""The compiled operators, called as ``reference`` is: arguments spelled out for the schemas of
csrc/module.cpp, shapes for tracing (fakes), and gradients. Constants come from ``reference``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import reference
from .reference import LUMA_WEIGHTS, TINY, YuvScale

_ops = torch.ops.banet_stream


def kinds() -> list[str]:
    """The kinds of device this build has kernels for."""
    has_cuda = torch._C._dispatch_has_kernel_for_dispatch_key("banet_stream::composite", "CUDA")
    return ["cpu", "cuda"] if has_cuda else ["cpu"]


# --- boundary attention ------------------------------------------------------------------------


def boundary_attention(logits: Tensor, image: Tensor, *, temperature: float) -> Tensor:
    return _ops.boundary_attention(logits, image, temperature, is_channels_last(image))  # type: ignore[no-any-return]


def is_channels_last(image: Tensor) -> bool:
    return image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()


@torch.library.register_fake("banet_stream::boundary_attention")
def _(logits: Tensor, image: Tensor, temperature: float, channels_last: bool) -> Tensor:
    batch, _, height, width = image.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (batch, 4, height, width), dtype=image.dtype, device=image.device, memory_format=layout
    )


@torch.library.register_fake("banet_stream::boundary_attention_backward")
def _(
    grad: Tensor, attention: Tensor, height: int, width: int, dtype: torch.dtype, temperature: float
) -> Tensor:
    return grad.new_empty((grad.shape[0], 1, height, width), dtype=dtype)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, _, ctx.temperature, _ = inputs
    ctx.size, ctx.dtype = logits.shape[2:], logits.dtype
    ctx.save_for_backward(output[:, 3:])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    (attention,) = ctx.saved_tensors
    to_logits = None
    if ctx.needs_input_grad[0]:
        to_logits = _ops.boundary_attention_backward(
            grad[:, 3:], attention, *ctx.size, ctx.dtype, ctx.temperature
        )
    return to_logits, grad[:, :3] if ctx.needs_input_grad[1] else None, None, None


torch.library.register_autograd("banet_stream::boundary_attention", _backward, setup_context=_remember)


# --- frames to network input -------------------------------------------------------------------


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
    scale = [*LUMA_WEIGHTS[matrix], *YuvScale.of(full_range, depth)]
    y, u, v = reference.planar(planes)
    return _ops.frame_to_input(y, u, v, *size, scale, mean, std, dtype, channels_last)  # type: ignore[no-any-return]


@torch.library.register_fake("banet_stream::frame_to_input")
def _(
    y: Tensor,
    u: Tensor,
    v: Tensor,
    height: int,
    width: int,
    scale: list[float],
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((1, 3, height, width), dtype=dtype, device=y.device, memory_format=layout)


# --- compositing -------------------------------------------------------------------------------


def upsample_alpha(alpha: Tensor, luma: Tensor, *, depth: int, upsampling: str) -> Tensor:
    return _ops.upsample_alpha(alpha, packed(luma), depth, *alpha_options(upsampling))  # type: ignore[no-any-return]


def alpha_options(upsampling: str) -> tuple[bool, int, float, float, float]:
    return (
        upsampling == "guided",
        reference.GUIDED_RADIUS,
        reference.GUIDED_EPSILON,
        reference.ALPHA_FLOOR,
        reference.ALPHA_CEILING,
    )


def packed(plane: Tensor) -> Tensor:
    """Rows may lie apart (decoders pad them), columns not."""
    return plane if plane.stride(1) == 1 else plane.contiguous()


@torch.library.register_fake("banet_stream::upsample_alpha")
def _(
    alpha: Tensor,
    luma: Tensor,
    depth: int,
    guided: bool,
    radius: int,
    epsilon: float,
    floor: float,
    ceiling: float,
) -> Tensor:
    return alpha.new_empty(luma.shape)


def composite(
    planes: list[Tensor],
    alpha: Tensor,
    background: list[Tensor],
    *,
    depth: int,
    subsampling: tuple[int, int],
    upsampling: str,
    decontaminate: bool,
) -> list[Tensor]:
    reach = reference.decontamination_radius(alpha) if decontaminate else 0
    front, back = map(packed, planes), map(packed, background)
    return list(
        _ops.composite(*front, alpha, *back, depth, *subsampling, *alpha_options(upsampling), reach, TINY)
    )


@torch.library.register_fake("banet_stream::composite")
def _(y: Tensor, u: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), u.new_empty(u.shape), v.new_empty(v.shape)


def masked_blur(planes: list[Tensor], alpha: Tensor, *, sigma: float, depth: int) -> list[Tensor]:
    blurred = []
    for plane in planes:
        size, own_sigma = reference.blur_size(plane, planes[0], sigma)
        taps = reference.gaussian_taps(own_sigma).tolist()
        blurred.append(_ops.masked_blur(plane, alpha, depth, *size, taps, TINY))
    return blurred


@torch.library.register_fake("banet_stream::masked_blur")
def _(
    plane: Tensor, alpha: Tensor, depth: int, height: int, width: int, taps: list[float], trace: float
) -> Tensor:
    return plane.new_empty(plane.shape)

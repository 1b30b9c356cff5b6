"""The compiled operators, called as ``reference`` is: arguments spelled out for the schemas of
csrc/module.cpp, shapes for tracing (fakes), and gradients. Constants come from ``reference``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import reference
from .kernel_options import alpha_options, colour_options, filter_options, is_channels_last, packed
from .reference import (
    ALPHA_FLOOR,
    ISLAND_CORE,
    LEFT_OF_PIXEL,
    LUMA_WEIGHTS,
    SMALL_HOLE,
    SMALL_ISLAND,
    SURE_HOLE,
    SURE_ISLAND,
    TINY,
    YuvScale,
)

_ops = torch.ops.banet_stream


def serves(operator: str, kind: str) -> bool:
    """Whether this build has a kernel for it."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"banet_stream::{operator}", kind.upper())


# --- boundary attention ------------------------------------------------------------------------


def boundary_attention(logits: Tensor, image: Tensor, *, temperature: float) -> Tensor:
    return _ops.boundary_attention(logits, image, temperature, is_channels_last(image))


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
    # The output itself: a view of it would hold the graph in a circle, freed only by the garbage collector.
    ctx.save_for_backward(output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    (output,) = ctx.saved_tensors
    to_logits = None
    if ctx.needs_input_grad[0]:
        to_logits = _ops.boundary_attention_backward(
            grad[:, 3:], output[:, 3:], *ctx.size, ctx.dtype, ctx.temperature
        )
    return to_logits, grad[:, :3] if ctx.needs_input_grad[1] else None, None, None


torch.library.register_autograd("banet_stream::boundary_attention", _backward, setup_context=_remember)


# --- gradients -----------------------------------------------------------------------------------


def sobel_gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    return _ops.sobel_gradient(image.contiguous())


@torch.library.register_fake("banet_stream::sobel_gradient")
def _(image: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, height, width = image.shape
    return image.new_empty((batch, 1, height, width)), image.new_empty((batch, 2, height, width))


@torch.library.register_fake("banet_stream::sobel_gradient_backward")
def _(magnitude: Tensor, direction: Tensor, image: Tensor) -> Tensor:
    return torch.empty_like(image, memory_format=torch.contiguous_format)


def _remember_image(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0])


def _sobel_backward(ctx: Any, magnitude: Tensor, direction: Tensor) -> Tensor:
    (image,) = ctx.saved_tensors
    return _ops.sobel_gradient_backward(magnitude.contiguous(), direction.contiguous(), image)


torch.library.register_autograd(
    "banet_stream::sobel_gradient", _sobel_backward, setup_context=_remember_image
)


def refine_loss(
    image: Tensor,
    prediction: Tensor,
    mask: Tensor,
    *,
    balance: float,
    direction_weight: float,
    magnitude_weight: float,
) -> Tensor:
    mask = mask.contiguous()
    weights = (balance, direction_weight, magnitude_weight)
    total = _ops.refine_loss(image.contiguous(), prediction.contiguous(), mask, *weights)
    return total / mask.sum().clamp(min=1)


@torch.library.register_fake("banet_stream::refine_loss")
def _(
    image: Tensor, prediction: Tensor, mask: Tensor, balance: float, direction: float, magnitude: float
) -> Tensor:
    return image.new_empty(())


@torch.library.register_fake("banet_stream::refine_loss_backward")
def _(
    grad: Tensor,
    image: Tensor,
    prediction: Tensor,
    mask: Tensor,
    balance: float,
    direction: float,
    magnitude: float,
    want_image: bool,
) -> tuple[Tensor, Tensor]:
    to_image = image.new_empty(image.shape if want_image else (0,))
    return to_image, prediction.new_empty(prediction.shape)


def _remember_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, prediction, mask, *ctx.weights = inputs
    ctx.save_for_backward(image, prediction, mask)


def _refine_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    want_image = ctx.needs_input_grad[0]
    image, prediction = _ops.refine_loss_backward(grad, *ctx.saved_tensors, *ctx.weights, want_image)
    return image if want_image else None, prediction, None, None, None, None


torch.library.register_autograd("banet_stream::refine_loss", _refine_backward, setup_context=_remember_inputs)


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
    return _ops.frame_to_input(y, u, v, *size, scale, mean, std, dtype, channels_last)


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
    return _ops.upsample_alpha(alpha, packed(luma), depth, *alpha_options(upsampling))


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


def fade_islands(alpha: Tensor) -> Tensor:
    bounds = (ALPHA_FLOOR, ISLAND_CORE, *SMALL_ISLAND, *SURE_ISLAND, *LEFT_OF_PIXEL)
    return _ops.fade_islands(alpha.contiguous(), *bounds)


def fill_holes(alpha: Tensor) -> Tensor:
    bounds = (ALPHA_FLOOR, ISLAND_CORE, *SMALL_HOLE, *SURE_HOLE, *LEFT_OF_PIXEL)
    return _ops.fill_holes(alpha.contiguous(), *bounds)


@torch.library.register_fake("banet_stream::fill_holes")
@torch.library.register_fake("banet_stream::fade_islands")
def _(
    alpha: Tensor,
    floor: float,
    core: float,
    small_low: float,
    small_high: float,
    sure_low: float,
    sure_high: float,
    left_low: float,
    left_high: float,
) -> Tensor:
    return alpha.new_empty(alpha.shape)


def guided_filter(alpha: Tensor, image: Tensor) -> Tensor:
    return _ops.guided_filter(alpha, image, *filter_options())


@torch.library.register_fake("banet_stream::guided_filter")
def _(alpha: Tensor, image: Tensor, *options: float) -> Tensor:
    return alpha.new_empty(alpha.shape)


def steady_alpha(alpha: Tensor, previous: Tensor, *, certain: float, steady: float) -> Tensor:
    return _ops.steady_alpha(alpha.contiguous(), previous.contiguous(), certain, steady)


@torch.library.register_fake("banet_stream::steady_alpha")
def _(alpha: Tensor, previous: Tensor, certain: float, steady: float) -> Tensor:
    return alpha.new_empty(alpha.shape)


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
    front, back = map(packed, planes), map(packed, background)
    options = (*alpha_options(upsampling), *colour_options(alpha), TINY, decontaminate, light_wrap)
    return list(_ops.composite(*front, alpha, *back, depth, *subsampling, *options))


@torch.library.register_fake("banet_stream::composite")
def _(y: Tensor, u: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), u.new_empty(u.shape), v.new_empty(v.shape)


def masked_blur(planes: list[Tensor], alpha: Tensor, *, sigma: float, depth: int) -> list[Tensor]:
    blurred = []
    for plane in planes:
        size, own_sigma = reference.blur_size(plane, planes[0], sigma)
        blurred.append(_ops.masked_blur(plane, alpha, depth, *size, own_sigma, TINY))
    return blurred


@torch.library.register_fake("banet_stream::masked_blur")
def _(
    plane: Tensor, alpha: Tensor, depth: int, height: int, width: int, sigma: float, trace: float
) -> Tensor:
    return plane.new_empty(plane.shape)

"""The public operators: what they take and give, and the checks. ``reference`` holds what they compute.

Planes are [H, W] tensors of samples as decoded: uint8 for 8 bits, int16 for 9 to 12. A frame has three
(Y, U, V) or, semi-planar, two (Y, and U and V interleaved as [h, 2w]).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import backends, reference

MATRICES = tuple(reference.LUMA_WEIGHTS)
DEPTHS = (8, 10, 12)
SUBSAMPLINGS = ((1, 1), (2, 1), (2, 2))
INPUT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Pictures are converted in bands of rows of so many pixels: what lies between the steps stays in the cache.
BAND_PIXELS = 1 << 20
UPSAMPLINGS = ("guided", "bilinear")


def boundary_attention(logits: Tensor, image: Tensor, *, temperature: float) -> Tensor:
    """The 4-channel image of the detail branch (paper, 3.1): the picture and its softened boundary map.

    Args:
        logits: [N, 1, h, w] float, usually at 1/4 of the image.
        image: [N, 3, H, W] float.
        temperature: T of eq. (2); larger is softer.

    Returns:
        [N, 4, H, W] of the image's dtype: the image, then sigmoid(upsampled logits / T), bilinear with
        half-pixel centres (``align_corners=False``).
    """
    name = "boundary_attention"
    check(name, "logits", logits.ndim == 4 and logits.shape[1] == 1, "be [N, 1, h, w]", list(logits.shape))
    check(name, "image", image.ndim == 4 and image.shape[1] == 3, "be [N, 3, H, W]", list(image.shape))
    same = logits.shape[0] == image.shape[0]
    check(name, "logits", same, f"have the image's batch size {image.shape[0]}", logits.shape[0])
    check_device(name, "logits", logits, image)
    check(name, "temperature", temperature > 0, "be positive", temperature)
    return backends.find(name, image.device)(logits, image, temperature=temperature)


def sobel_gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's Gradient Calculation Layer (3.3): normalised by minimum and maximum (eq. 12), Sobel (9).

    Args:
        image: [N, C, H, W] float32 or float64; of three channels the luminance is taken, of any other
            number the mean.

    Returns:
        Magnitude (eq. 10) [N, 1, H, W] and direction (eq. 11), a unit vector [N, 2, H, W]: x to the right,
        y downwards. The edge pixel repeats beyond the border. Where nothing changes both are 0 and pass no
        gradient back; so in flat images, and in any that hold NaN or infinity.
    """
    check_image("sobel_gradient", "image", image)
    return backends.find("sobel_gradient", image.device)(image)


def refine_loss(
    image: Tensor,
    prediction: Tensor,
    mask: Tensor,
    *,
    balance: float = 1.5,
    direction_weight: float = 0.5,
    magnitude_weight: float = 0.5,
) -> Tensor:
    """The paper's refine loss (3.2): the matte's gradients should be where and as the image's are.

    Args:
        image: [N, C, H, W] float32 or float64.
        prediction: [N, 1, H, W] of the same dtype, in 0..1.
        mask: [N, 1, H, W] of the same dtype: 1 in the boundary area, 0 elsewhere. No gradient goes to it.
        balance: lambda of eq. (6).
        direction_weight: gamma_1 of eq. (7), for L_cos (5).
        magnitude_weight: gamma_2, for L_mag (6).

    Returns:
        A scalar: the mean over the batch's boundary area, 0 where that is empty.
    """
    name = "refine_loss"
    check_image(name, "image", image)
    shape = [image.shape[0], 1, *image.shape[2:]]
    for argument, tensor in (("prediction", prediction), ("mask", mask)):
        check(name, argument, list(tensor.shape) == shape, f"be {shape}", list(tensor.shape))
        check(name, argument, tensor.dtype == image.dtype, f"be {image.dtype}", tensor.dtype)
        check_device(name, argument, tensor, image)
    return backends.find(name, image.device)(
        image,
        prediction,
        mask.detach(),
        balance=balance,
        direction_weight=direction_weight,
        magnitude_weight=magnitude_weight,
    )


def frame_to_input(
    planes: list[Tensor],
    *,
    size: tuple[int, int],
    matrix: str,
    full_range: bool,
    depth: int = 8,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """A decoded frame as network input: YUV to RGB, resized, normalised.

    Args:
        planes: Y, U, V (or Y, UV) of any subsampling.
        size: height and width of the result; shrinking averages areas, enlarging is bilinear.
        matrix: ``bt601``, ``bt709`` or ``bt2020`` (non-constant luminance).
        full_range: True for 0..255 samples ("pc"), False for 16..235 ("tv").
        depth: bits per sample: 8, 10 or 12.
        mean, std: per-channel normalisation of RGB in 0..1.
        dtype: of the result: float32, float16 or bfloat16.
        channels_last: the result's memory format.

    Returns:
        [1, 3, h, w]: (rgb - mean) / std, rgb clamped to 0..1.
    """
    name = "frame_to_input"
    check_planes(name, "planes", planes, depth)
    check(name, "planes", len(planes) in (2, 3), "be Y, U, V or Y, UV", f"{len(planes)} planes")
    u, v = (list(plane.shape) for plane in reference.planar(planes)[1:])
    check(name, "planes", u == v, "have U and V of one size", f"{u} and {v}")
    check(name, "size", min(size) > 0, "be two positive numbers", size)
    check_choice(name, "matrix", matrix, MATRICES)
    check_choice(name, "dtype", dtype, INPUT_DTYPES)
    return backends.find(name, planes[0].device)(
        planes,
        size=size,
        matrix=matrix,
        full_range=full_range,
        depth=depth,
        mean=mean,
        std=std,
        dtype=dtype,
        channels_last=channels_last,
    )


def rgb_to_planes(
    rgb: Tensor, *, matrix: str, full_range: bool, depth: int = 8, subsampling: tuple[int, int] = (2, 2)
) -> list[Tensor]:
    """An RGB picture in a video's colour encoding.

    Args:
        rgb: [H, W, 3] float in 0..1 (gamma-coded, as in an image file).
        matrix, full_range, depth: as in :func:`frame_to_input`.
        subsampling: horizontal and vertical: (1, 1) is 4:4:4, (2, 1) 4:2:2, (2, 2) 4:2:0. Chroma is
            sampled left-aligned, H.264's default.

    Returns:
        Y [H, W], U and V [ceil(H / sy), ceil(W / sx)].
    """
    name = "rgb_to_planes"
    check(name, "rgb", rgb.ndim == 3 and rgb.shape[-1] == 3, "be [H, W, 3]", list(rgb.shape))
    check_choice(name, "matrix", matrix, MATRICES)
    check_choice(name, "depth", depth, DEPTHS)
    check_choice(name, "subsampling", subsampling, SUBSAMPLINGS)
    height, width = rgb.shape[:2]
    chroma, down = chroma_shape(height, width, subsampling), subsampling[1]
    dtype = torch.uint8 if depth == 8 else torch.int16
    planes = [
        torch.empty(shape, dtype=dtype, device=rgb.device) for shape in ([height, width], chroma, chroma)
    ]
    rows = 2 * max(1, BAND_PIXELS // (2 * max(1, width)))  # even: a row of chroma is of two of luma
    for top in range(0, height, rows):
        parts = reference.rgb_to_planes(
            rgb[top : top + rows], matrix=matrix, full_range=full_range, depth=depth, subsampling=subsampling
        )
        for plane, part, step in zip(planes, parts, (1, down, down), strict=True):
            plane[top // step :][: len(part)] = part
    return planes


def upsample_alpha(alpha: Tensor, luma: Tensor, *, depth: int = 8, upsampling: str = "guided") -> Tensor:
    """A matte at network size, brought to the frame's size along the edges of its luma.

    Args:
        alpha: [h, w] float32 in 0..1.
        luma: [H, W] samples.
        upsampling: ``guided`` (fast guided filter) or ``bilinear``.

    Returns:
        [H, W] float32 in 0..1. What is surely subject or surely not is exactly 1 or 0.
    """
    name = "upsample_alpha"
    check_alpha(name, alpha)
    check_planes(name, "luma", [luma], depth)
    check_device(name, "alpha", alpha, luma)
    check_choice(name, "upsampling", upsampling, UPSAMPLINGS)
    return backends.find(name, luma.device)(alpha, luma, depth=depth, upsampling=upsampling)


def fade_islands(alpha: Tensor) -> Tensor:
    """Takes out of a matte what hangs together with nobody and may well be nobody.

    An island is what touches, by side or corner, and is more likely somebody than not. One fades that is both
    small beside the largest (by the sum of its alpha: all of it stays from 12 %, nothing below 8 %) and
    unsure (by the mean of its alpha, weighted by itself: from 0.95, below 0.9), unless a bridge leads to one
    that stays: the more alpha the bridge has at its weakest, the more of the island stays, so that no hair's
    breadth decides. Soft pixels stay with the islands that they hang from, and fade as they do. A hand whose
    arm is out of the picture stays, and so do children; ghosts of monitors and lamps go. Where nothing is
    more likely somebody than not, all stays as it is.

    On a CPU, where a CUDA matte is brought and taken back: connecting is serial, and compositing is next.

    Args:
        alpha: [h, w] float32 in 0..1, the network's.

    Returns:
        [h, w] float32 in 0..1, nowhere more than ``alpha``.
    """
    return on_cpu("fade_islands", alpha)


def fill_holes(alpha: Tensor) -> Tensor:
    """Fills in a matte what background lies within somebody and may well be somebody: ``fade_islands`` of the
    rest, with other bounds.

    A hole fills that is both small beside the background (all of it stays from 0.6 %, nothing below 0.3 %)
    and unsure (by the mean of 1 - alpha: from 0.75, below 0.65). Gaps between arm and body stay.

    Args:
        alpha: [h, w] float32 in 0..1.

    Returns:
        [h, w] float32 in 0..1, nowhere less than ``alpha``.
    """
    return on_cpu("fill_holes", alpha)


def on_cpu(name: str, alpha: Tensor) -> Tensor:
    check_alpha(name, alpha)
    there = alpha.cpu()
    mended: Tensor = backends.find(name, there.device)(there)
    return mended.to(alpha.device)


def guided_filter(alpha: Tensor, image: Tensor) -> Tensor:
    """A matte that follows the edges and the hair of the picture it is of: the guided filter (He, Sun and
    Tang 2013), with colour as its guide.

    In every window alpha is fitted as a linear function of colour; windows are weighted by how much of
    alpha's variance their fit explains. Where those around a pixel explain less than half of it, as where
    somebody has the colours of the background, alpha stays as it is, and so it does where nothing around is
    soft. It never leaves the range of the pixels next to it: what is nobody all around stays nobody.

    Args:
        alpha: [h, w] float32 in 0..1, the network's.
        image: [3, h, w] float32, what the network saw: normalised, any strides. What is no number counts as
            the mean colour.

    Returns:
        [h, w] float32 in 0..1.
    """
    name = "guided_filter"
    check_alpha(name, alpha)
    shape = [3, *alpha.shape]
    check(name, "image", list(image.shape) == shape, f"have shape {shape}", list(image.shape))
    check(name, "image", image.dtype == torch.float32, "be float32", image.dtype)
    check_device(name, "image", image, alpha)
    return backends.find(name, alpha.device)(alpha, image)


def steady_alpha(alpha: Tensor, previous: Tensor, *, certain: float, steady: float) -> Tensor:
    """A video's matte, blended with the one before: it stops shimmering where nothing moves.

    An operator of its own, before the others: blurring and compositing must see one and the same matte.

    Args:
        alpha: [h, w] float32 in 0..1, the network's.
        previous: [h, w] float32: what this operator gave for the frame before.
        certain: difference from which the new matte is taken as it is.
        steady: 0..1, the share of a vanishing difference that is taken.

    Returns:
        [h, w] float32 in 0..1.
    """
    name = "steady_alpha"
    check_alpha(name, alpha)
    check_alpha(name, previous, "previous")
    same = alpha.shape == previous.shape
    check(name, "previous", same, f"have alpha's shape {list(alpha.shape)}", list(previous.shape))
    check_device(name, "previous", previous, alpha)
    check(name, "certain", certain > 0, "be positive", certain)
    check(name, "steady", 0 <= steady <= 1, "be between 0 and 1", steady)
    return backends.find(name, alpha.device)(alpha, previous, certain=certain, steady=steady)


def composite(
    planes: list[Tensor],
    alpha: Tensor,
    background: list[Tensor],
    *,
    depth: int = 8,
    subsampling: tuple[int, int] = (2, 2),
    upsampling: str = "guided",
    decontaminate: bool = True,
    light_wrap: float = 0.0,
) -> list[Tensor]:
    """The subject before another background, blended in YUV at the source's depth and subsampling.

    Where alpha is 1 the source's sample leaves bit-identical, where it is 0 the background's.

    Args:
        planes: Y, U, V of the frame.
        alpha: [h, w] float32 in 0..1 at network size.
        background: three planes of the same shapes and dtype.
        subsampling: of the planes, horizontal and vertical.
        upsampling: as in :func:`upsample_alpha`.
        decontaminate: take the old background's colour out of the soft edge.
        light_wrap: 0..1, how much light of the new background falls on the soft edge.
    """
    name = "composite"
    check_planes(name, "planes", planes, depth, count=3)
    check_planes(name, "background", background, depth, count=3)
    check_alpha(name, alpha)
    check_device(name, "alpha", alpha, planes[0])
    check_device(name, "background", background[0], planes[0])
    check_choice(name, "upsampling", upsampling, UPSAMPLINGS)
    check_choice(name, "subsampling", subsampling, SUBSAMPLINGS)
    check(name, "light_wrap", 0 <= light_wrap <= 1, "be between 0 and 1", light_wrap)
    shapes, others = [list(p.shape) for p in planes], [list(p.shape) for p in background]
    check(name, "background", shapes == others, f"have the frame's plane shapes {shapes}", others)
    height, width = planes[0].shape
    chroma = chroma_shape(height, width, subsampling)
    check(name, "planes", shapes[1:] == [chroma, chroma], f"have chroma of shape {chroma}", shapes[1:])
    return backends.find(name, alpha.device)(
        planes,
        alpha,
        background,
        depth=depth,
        subsampling=subsampling,
        upsampling=upsampling,
        decontaminate=decontaminate,
        light_wrap=light_wrap,
    )


def masked_blur(planes: list[Tensor], alpha: Tensor, *, sigma: float, depth: int = 8) -> list[Tensor]:
    """The frame's background, blurred without the subject: its colour can't bleed out as a halo.

    Args:
        planes: Y, U, V.
        alpha: [h, w] float32 in 0..1: what the blur leaves out.
        sigma: of the Gaussian, in luma samples. The cost does not depend on it.

    Returns:
        Three planes like the frame's; under the subject, what surrounds it.
    """
    name = "masked_blur"
    check_planes(name, "planes", planes, depth, count=3)
    check_alpha(name, alpha)
    check_device(name, "alpha", alpha, planes[0])
    check(name, "sigma", 0 < sigma < math.inf, "be positive and finite", sigma)
    return backends.find(name, alpha.device)(planes, alpha, sigma=sigma, depth=depth)


# --- checks ------------------------------------------------------------------------------------


def chroma_shape(height: int, width: int, subsampling: tuple[int, int]) -> list[int]:
    """Of a frame's U and V."""
    across, down = subsampling
    return [-(-height // down), -(-width // across)]


def check(operator: str, argument: str, holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{operator}: {argument} must {rule}, got {value}")


def check_choice(operator: str, argument: str, value: object, allowed: tuple[object, ...]) -> None:
    check(operator, argument, value in allowed, f"be one of {', '.join(map(str, allowed))}", value)


def check_device(operator: str, argument: str, tensor: Tensor, other: Tensor) -> None:
    """Where another one lies: a kernel would take the address for one of its own memory."""
    check(operator, argument, tensor.device == other.device, f"be on {other.device}", tensor.device)


def check_image(operator: str, argument: str, image: Tensor) -> None:
    dimensions = f"{image.ndim} dimensions"
    check(operator, argument, image.ndim == 4, "be [N, C, H, W]", dimensions)
    filled = min(image.shape[1:]) > 0
    check(operator, argument, filled, "have channels, rows and columns", list(image.shape))
    floats = image.dtype in (torch.float32, torch.float64)
    check(operator, argument, floats, "be float32 or float64", image.dtype)


def check_alpha(operator: str, alpha: Tensor, argument: str = "alpha") -> None:
    filled = alpha.ndim == 2 and alpha.numel() > 0
    check(operator, argument, filled, "be [h, w], not empty", list(alpha.shape))
    check(operator, argument, alpha.dtype == torch.float32, "be float32", alpha.dtype)


def check_planes(operator: str, argument: str, planes: list[Tensor], depth: int, count: int = 0) -> None:
    check_choice(operator, "depth", depth, DEPTHS)
    if count:
        check(operator, argument, len(planes) == count, f"hold {count} planes", len(planes))
    dtype = torch.uint8 if depth == 8 else torch.int16
    for plane in planes:
        shape = list(plane.shape)
        check(operator, argument, plane.ndim == 2 and plane.numel() > 0, "be [H, W], not empty", shape)
        check(operator, argument, plane.dtype == dtype, f"be {dtype} at {depth} bits", plane.dtype)
        check_device(operator, argument, plane, planes[0])

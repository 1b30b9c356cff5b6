"""The operators in plain PyTorch: the specification that every compiled kernel is compared with.

Arguments are checked in ``ops``, where each operator is documented; here stands only what it computes.
Planes are [H, W] tensors: uint8, or int16 for 9 to 12 bits per sample.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Luma weights K_R and K_B: BT.601-7 (2.5.1), BT.709-6 (3.2), BT.2020-2 (table 4, non-constant luminance).
LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}

# Guided upsampling: window radius at the matte's size, and the luma variance below which it does not
# look for an edge ((3 of 255)^2). Measured on soft mattes shrunk 2.5 times and blurred as a network's
# are: radius 1 errs 17 % less than bilinear in the edge band, radius 2 as much, radius 4 more.
GUIDED_RADIUS = 1
GUIDED_EPSILON = (3 / 255) ** 2

# Alpha below and above these leaves as exactly 0 and 1: a sigmoid never gets there by itself, and what is
# hardly there shows as a ghost. Measured with banet64 on portraits-val: MAD 0.079 without, 0.069 with 0.05
# and 0.95, 0.061 with these (0.049, 0.039 and 0.031 on the soft mattes of video-frames); harder still lowers
# it further and hardens hair.
ALPHA_FLOOR, ALPHA_CEILING = 0.2, 0.85

# Islands of a matte hang together above the core's alpha. Which of them fade (see ops.fade_islands): by their
# mass, as a share of the largest one's, and by how sure they are. What is left of a pixel fades too when it
# is so little of it, lest a ghost stays. Measured with banet64 at the network's size: on portraits-val mIoU
# 92.28 -> 92.31 %, MAD 0.0362 -> 0.0360; on 120 portraits before other rooms 94.32 -> 94.49 %, 0.0239 ->
# 0.0230; on 120 whole figures 92.51 -> 92.64 %, 0.0144 -> 0.0139. Were 0.2 the core: 92.29, 94.38, 92.59 %.
ISLAND_CORE = 0.5
SMALL_ISLAND, SURE_ISLAND, LEFT_OF_PIXEL = (0.08, 0.12), (0.9, 0.95), (0.25, 0.75)

# Which holes fill (see ops.fill_holes), by their mass beside the largest one's, the background's, and by how
# sure they are. On the three sets above 200 pictures are nearer to their masks then, 116 farther; mIoU as it
# was, or up to 0.02 % better. Larger and surer ones lose: gaps between arm and body fill.
SMALL_HOLE, SURE_HOLE = (0.003, 0.006), (0.65, 0.75)

# The guided filter of mattes (see ops.guided_filter): window radius at the matte's size; the variance of a
# channel below which it is noise, of pictures as networks see them (where 1 is about 57 of 255); the variance
# of alpha that needs no explanation; from which share of alpha's variance explained a fit counts, and from
# which it counts fully; how far around soft pixels it works, and which are soft. Measured with the weights of
# commit 22ca442 at 448, without -> with: on 20 clips before other rooms (training/README.md) boundary IoU
# 0.755 -> 0.755, Grad 4.81 -> 4.49, dtSSD 4.42 -> 4.15; on portraits-val with soft outlines 94.2 -> 94.4 %,
# 0.742 -> 0.753, and with masks drawn by hand, which have a rim of background, 93.8 -> 93.7 %, 0.719 ->
# 0.712. Smaller windows find less hair; with more trust in fits leaves behind somebody come in.
FILTER_RADIUS, FILTER_EPSILON, FILTER_LEAST_VARIANCE = 8, 2e-4, 1e-4
FILTER_TRUST = (0.5, 0.9)
FILTER_REACH, FILTER_UNSURE = 1, 0.05
# Windows of less variance, and means of fits that weigh less, say nothing.
FILTER_TINY = 1e-9

# Local colours are means over windows, so a quarter of the matte's size holds them; the windows reach this
# far, as a share of the longer side, for definite colours.
COLOUR_SHRINKING = 4
COLOUR_REACH = 1 / 48

# Below this weight a colour average says nothing.
TINY = 1e-4

# Gradients of a normalised image below this are rounding, and count as none (csrc/sobel_gradient.h).
GRADIENT_FLOOR = 1e-6

# Luminance of RGB for the gradients: BT.601's weights, as in OpenCV.
LUMINANCE = (0.299, 0.587, 0.114)


# --- boundary attention ------------------------------------------------------------------------


def boundary_attention(logits: Tensor, image: Tensor, *, temperature: float) -> Tensor:
    enlarged = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
    attention = torch.sigmoid(enlarged / temperature)
    return torch.cat([image, attention.to(image.dtype)], 1)


# --- gradients -----------------------------------------------------------------------------------


def sobel_gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    normalised = normalise(luminance(image))
    padded = F.pad(normalised, (1, 1, 1, 1), mode="replicate")
    # Eq. (9), as the convolution it is written as: x grows to the right, y downwards.
    rows = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    x, y = rows[..., 2:] - rows[..., :-2], columns[..., 2:, :] - columns[..., :-2, :]
    square = x * x + y * y
    edge = square > GRADIENT_FLOOR**2
    magnitude = torch.where(edge, square, 1).sqrt()
    direction = torch.where(edge, torch.cat([x, y], 1) / magnitude, 0)
    return torch.where(edge, magnitude, 0), direction


def luminance(image: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 1, H, W]: of RGB its luminance, of any other channels the mean."""
    if image.shape[1] != 3:
        return image.mean(1, keepdim=True)
    red, green, blue = LUMINANCE
    return red * image[:, :1] + green * image[:, 1:2] + blue * image[:, 2:]


def normalise(image: Tensor) -> Tensor:
    """Eq. (12). Flat images, and any with NaN or infinity, give zeros."""
    image = torch.where(image.isfinite().all(3, keepdim=True).all(2, keepdim=True), image, 0)
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    span = high - low
    varied = (span > 0) & span.isfinite()
    return torch.where(varied, (image - low) / torch.where(varied, span, 1), 0)


def refine_loss(
    image: Tensor,
    prediction: Tensor,
    mask: Tensor,
    *,
    balance: float,
    direction_weight: float,
    magnitude_weight: float,
) -> Tensor:
    image_magnitude, image_direction = sobel_gradient(image)
    magnitude, direction = sobel_gradient(prediction)
    dot = (image_direction * direction).sum(1, keepdim=True)
    cosine = (1 - dot.abs()) * magnitude  # eq. (5)
    missing = (balance * image_magnitude - magnitude).clamp(min=0)  # eq. (6)
    loss = (direction_weight * cosine + magnitude_weight * missing) * mask  # eq. (7)
    return loss.sum() / mask.sum().clamp(min=1)


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
    # Resizing is linear, so it commutes with the colour matrix: shrink the planes, then convert.
    y, u, v = (resize(plane.float(), size) for plane in planar(planes))
    scale = YuvScale.of(full_range, depth)
    y, u, v = (y - scale.black) / scale.luma, (u - scale.grey) / scale.chroma, (v - scale.grey) / scale.chroma
    red, green, blue = LUMA_WEIGHTS[matrix][0], 0.0, LUMA_WEIGHTS[matrix][1]
    green = 1 - red - blue
    r = y + 2 * (1 - red) * v
    b = y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / green
    rgb = torch.stack([r, g, b]).clamp(0, 1)
    centre = torch.tensor(mean, device=rgb.device)[:, None, None]
    spread = torch.tensor(std, device=rgb.device)[:, None, None]
    result = ((rgb - centre) / spread)[None].to(dtype)
    return result.contiguous(memory_format=torch.channels_last) if channels_last else result


def rgb_to_planes(
    rgb: Tensor, *, matrix: str, full_range: bool, depth: int, subsampling: tuple[int, int]
) -> list[Tensor]:
    red, blue = LUMA_WEIGHTS[matrix]
    r, g, b = rgb.float().unbind(-1)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scale = YuvScale.of(full_range, depth)
    chroma = [shrink_to_chroma(c, subsampling) * scale.chroma + scale.grey for c in (u, v)]
    return [quantise(p, depth) for p in (y * scale.luma + scale.black, *chroma)]


class YuvScale(NamedTuple):
    """Sample values of a YUV encoding (BT.709-6, 4.4-4.6 for limited; H.273, 8.3 for full range)."""

    black: float
    luma: float
    grey: float
    chroma: float

    @staticmethod
    def of(full_range: bool, depth: int) -> YuvScale:
        unit, peak = 2.0 ** (depth - 8), 2.0**depth - 1
        if full_range:
            return YuvScale(0.0, peak, 128 * unit, peak)
        return YuvScale(16 * unit, 219 * unit, 128 * unit, 224 * unit)


def planar(planes: list[Tensor]) -> list[Tensor]:
    """Splits a semi-planar UV plane."""
    if len(planes) == 3:
        return planes
    luma, chroma = planes
    return [luma, chroma[:, 0::2], chroma[:, 1::2]]


def quantise(plane: Tensor, depth: int) -> Tensor:
    # floor(x + 0.5), not round(): ties go up in C++ and CUDA alike.
    dtype = torch.uint8 if depth == 8 else torch.int16
    return (plane + 0.5).floor().clamp(0, 2**depth - 1).to(dtype)


# --- resizing ----------------------------------------------------------------------------------


def resize(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., H, W] float32 -> [..., h, w]: exact area average when shrinking, bilinear when enlarging."""
    height, width = plane.shape[-2:]
    if height != size[0]:
        plane = resize_weights(height, size[0], plane.device) @ plane
    if width != size[1]:
        plane = plane @ resize_weights(width, size[1], plane.device).T
    return plane


@lru_cache(maxsize=32)
def resize_weights(source: int, target: int, device: torch.device) -> Tensor:
    """[target, source]: the share of every source sample in every target sample (half-pixel centres)."""
    ratio = source / target
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * ratio
    index = torch.arange(source, dtype=torch.float64)
    if ratio > 1:  # overlap of [index, index + 1] with the target sample's interval
        low, high = (centre - ratio / 2)[:, None], (centre + ratio / 2)[:, None]
        weights = (torch.minimum(high, index + 1) - torch.maximum(low, index)).clamp(min=0) / ratio
    else:
        position = (centre - 0.5).clamp(0, source - 1)[:, None]
        weights = (1 - (position - index).abs()).clamp(min=0)
    return weights.float().to(device)


def shrink_to_chroma(plane: Tensor, subsampling: tuple[int, int]) -> Tensor:
    """[H, W] -> [ceil(H/sy), ceil(W/sx)], sampled where MPEG-2 and H.264 put chroma by default:
    horizontally on the even luma columns, vertically between two rows."""
    horizontal, vertical = subsampling
    if horizontal == 2:
        padded = F.pad(plane[None, None], (1, 1, 0, 0), mode="replicate")[0, 0]
        left, middle, right = padded[:, :-2:2], padded[:, 1:-1:2], padded[:, 2::2]
        plane = (left + 2 * middle + right) / 4
    if vertical == 2:
        if plane.shape[0] % 2:
            plane = torch.cat([plane, plane[-1:]])
        plane = (plane[0::2] + plane[1::2]) / 2
    return plane


def box(x: Tensor, radius: int) -> Tensor:
    """[C, H, W] -> the mean over a square window; at the border, over the part inside."""
    width = 2 * radius + 1
    rows = F.avg_pool2d(x[None], (1, width), 1, (0, radius), count_include_pad=False)
    return F.avg_pool2d(rows, (width, 1), 1, (radius, 0), count_include_pad=False)[0]


# --- compositing -------------------------------------------------------------------------------


def upsample_alpha(alpha: Tensor, luma: Tensor, *, depth: int, upsampling: str) -> Tensor:
    """[h, w] float32 and [H, W] samples -> [H, W] float32."""
    alpha = clean_alpha(alpha)
    if upsampling == "guided":
        # Fast guided filter (He and Sun 2015): fit alpha = a * luma + b in small windows, enlarge a and b.
        # In float64: a small variance is the difference of large squares.
        full = luma.float() / (2**depth - 1)
        guide, wide = resize(full, (alpha.shape[0], alpha.shape[1])).double(), alpha.double()
        moments = box(torch.stack([guide, wide, guide * wide, guide * guide]), GUIDED_RADIUS)
        mean, mean_alpha, product, square = moments
        slope = (product - mean * mean_alpha) / ((square - mean * mean).clamp(min=0) + GUIDED_EPSILON)
        coefficients = box(torch.stack([slope, mean_alpha - slope * mean]), GUIDED_RADIUS).float()
        slope, offset = resize(coefficients, (luma.shape[0], luma.shape[1]))
        enlarged = slope * full + offset
    else:
        enlarged = resize(alpha, (luma.shape[0], luma.shape[1]))
    return ((enlarged - ALPHA_FLOOR) / (ALPHA_CEILING - ALPHA_FLOOR)).clamp(0, 1)


def clean_alpha(alpha: Tensor) -> Tensor:
    """NaN counts as 0: a failed matte never shows the room."""
    return alpha.nan_to_num(0.0).clamp(0, 1)


def fade_islands(alpha: Tensor) -> Tensor:
    return faded(clean_alpha(alpha), SMALL_ISLAND, SURE_ISLAND)


def fill_holes(alpha: Tensor) -> Tensor:
    alpha = clean_alpha(alpha)
    empty = 1 - alpha
    return alpha + (empty - faded(empty, SMALL_HOLE, SURE_HOLE))


def faded(alpha: Tensor, small: tuple[float, float], sure: tuple[float, float]) -> Tensor:
    """In float64, so that sums over many pixels are as good as the kernel's."""
    labels = connected(alpha > ISLAND_CORE)
    names, members = torch.unique(labels, return_inverse=True)
    islands, values = names > 0, alpha.double().flatten()
    if not islands.any():
        return alpha

    none = torch.zeros(len(names), dtype=torch.float64, device=alpha.device)
    mass = none.index_add(0, members.flatten(), values)
    squares = none.index_add(0, members.flatten(), values * values)
    size = ramp(mass / mass[islands].max(), *small)
    kept = torch.maximum(size, ramp(squares / mass.clamp(min=TINY), *sure)).float() * islands

    bridges = flooded((kept == 1).float()[members], alpha)
    bridge = none.float().scatter_reduce(0, members.flatten(), bridges.flatten(), "amax").double()
    kept = torch.maximum(kept, ramp(bridge, ALPHA_FLOOR, ISLAND_CORE).float() * islands)
    left = flooded(kept[members], alpha)
    lower = left * ramp(left.double() / alpha.clamp(min=ALPHA_FLOOR), *LEFT_OF_PIXEL).float()
    return torch.where((alpha > ALPHA_FLOOR) & (left < alpha), lower, alpha)


def flooded(sources: Tensor, alpha: Tensor) -> Tensor:
    """Grey reconstruction: the most of ``sources`` that reaches a pixel, over none with less of ``alpha``."""
    ground = alpha * (alpha > ALPHA_FLOOR)
    depths = torch.minimum(sources, ground)
    while True:
        spread = torch.minimum(F.max_pool2d(depths[None, None], 3, 1, 1)[0, 0], ground)
        if torch.equal(spread, depths):
            return depths
        depths = spread


def connected(mask: Tensor) -> Tensor:
    """[h, w] bool -> int64: the same number for pixels that touch by side or corner, 0 outside the mask."""
    inside = mask.double()
    labels = (torch.arange(mask.numel(), device=mask.device).reshape(mask.shape) + 1) * inside
    while True:
        # The largest number around; then, as numbers are places, the number that is found there.
        spread = (F.max_pool2d(labels[None, None], 3, 1, 1)[0, 0] * inside).long().flatten()
        jumped = torch.where(spread > 0, spread[(spread - 1).clamp(min=0)], 0).reshape(mask.shape)
        if torch.equal(jumped.double(), labels):
            return jumped
        labels = jumped.double()


def ramp(values: Tensor, low: float, high: float) -> Tensor:
    return ((values - low) / (high - low)).clamp(0, 1)


def guided_filter(alpha: Tensor, image: Tensor) -> Tensor:
    """In float64: variances are differences of large squares."""
    alpha = clean_alpha(alpha)
    wide, colours = alpha.double(), image.nan_to_num(0.0, 0.0, 0.0).double()
    values = torch.cat([colours, wide[None]])
    products = (values[:, None] * values[None]).flatten(0, 1)
    moments = box(products, FILTER_RADIUS).view(4, 4, *alpha.shape)
    means = box(values, FILTER_RADIUS)
    spread = (moments - means[:, None] * means[None]).permute(2, 3, 0, 1)
    variance, covariance = spread[..., 3, 3], spread[..., :3, 3]
    noise = FILTER_EPSILON * torch.eye(3, dtype=torch.float64, device=alpha.device)
    slopes = torch.linalg.solve(spread[..., :3, :3] + noise, covariance)
    offset = means[3] - (slopes * means[:3].permute(1, 2, 0)).sum(2)

    share = ((slopes * covariance).sum(2) / (variance + FILTER_LEAST_VARIANCE)).clamp(0, 1)
    weight = torch.where(variance < FILTER_TINY, 0, variance * share)
    fits = torch.stack([*slopes.unbind(2), offset, share, torch.ones_like(share)])
    *slope, offset, share, weight = box(weight * fits, FILTER_RADIUS)
    known = weight > FILTER_TINY
    weight = torch.where(known, weight, 1)
    filtered = ((torch.stack(slope) * colours).sum(0) + offset) / weight
    trust = ramp(share / weight, *FILTER_TRUST)
    lowest, highest = (
        sign * F.max_pool2d(sign * alpha[None], 2 * FILTER_REACH + 1, 1, FILTER_REACH)[0] for sign in (-1, 1)
    )
    followed = wide + trust * (filtered.clamp(lowest.double(), highest.double()) - wide)
    unsure = (highest > FILTER_UNSURE) & (lowest < 1 - FILTER_UNSURE)
    return torch.where(known & unsure, followed.float(), alpha)


def steady_alpha(alpha: Tensor, previous: Tensor, *, certain: float, steady: float) -> Tensor:
    alpha, previous = clean_alpha(alpha), clean_alpha(previous)
    change = alpha - previous
    trust = steady + (1 - steady) * (change.abs() / certain).clamp(max=1)
    return previous + trust * change


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
    alpha = clean_alpha(alpha)
    luma_alpha = upsample_alpha(alpha, planes[0], depth=depth, upsampling=upsampling)
    chroma_alpha = shrink_to_chroma(luma_alpha, subsampling)
    blended = []
    for plane, behind in zip(planes, background, strict=True):
        cover = luma_alpha if plane is planes[0] else chroma_alpha
        colour = foreground(plane.float(), cover, alpha) if decontaminate else plane.float()
        if light_wrap:
            colour = colour + light_wrap * (1 - cover) * (ambient(behind.float(), alpha) - colour)
        blended.append(quantise(behind.float() + cover * (colour - behind.float()), depth))
    return blended


def foreground(plane: Tensor, cover: Tensor, alpha: Tensor) -> Tensor:
    """The subject's own colour, without the old background's share (Germer et al. 2020; Forte 2021).

    Local means of definite foreground and background colour predict the pixel; what the prediction misses
    is given to the foreground in proportion to its cover.
    """
    size = colour_size(alpha)
    small, rough = resize(plane, size), resize(alpha, size)
    weights = torch.stack([rough**2, (1 - rough) ** 2])
    sums = box(torch.cat([weights * small, weights]), colour_reach(size))
    known = sums[2:] > TINY
    means = torch.where(known, sums[:2] / sums[2:].clamp(min=TINY), small)
    subject, behind = resize(means, (plane.shape[0], plane.shape[1]))
    return subject + cover * (plane - cover * subject - (1 - cover) * behind)


def ambient(background: Tensor, alpha: Tensor) -> Tensor:
    """The new background's light on the subject's edge: its local mean colour."""
    size = colour_size(alpha)
    mean = box(resize(background, size)[None], colour_reach(size))[0]
    return resize(mean, (background.shape[0], background.shape[1]))


def colour_size(alpha: Tensor) -> tuple[int, int]:
    return -(-alpha.shape[0] // COLOUR_SHRINKING), -(-alpha.shape[1] // COLOUR_SHRINKING)


def colour_reach(size: tuple[int, int]) -> int:
    return max(1, round(max(size) * COLOUR_REACH))


def masked_blur(planes: list[Tensor], alpha: Tensor, *, sigma: float, depth: int) -> list[Tensor]:
    alpha = clean_alpha(alpha)
    blurred = []
    for plane in planes:
        size, own_sigma = blur_size(plane, planes[0], sigma)
        visible = 1 - resize(alpha, size)
        small = resize(plane.float(), size)
        sums = gaussian(torch.stack([small * visible, visible]), own_sigma)
        everywhere = gaussian(torch.stack([small * TINY, torch.full_like(small, TINY)]), own_sigma)
        mean = (sums[0] + everywhere[0]) / (sums[1] + everywhere[1])
        blurred.append(quantise(resize(mean, (plane.shape[0], plane.shape[1])), depth))
    return blurred


def blur_size(plane: Tensor, luma: Tensor, sigma: float) -> tuple[tuple[int, int], float]:
    """The size at which a plane is blurred, where ``sigma`` (in luma samples) is about 2; and it there."""
    own_sigma = sigma * plane.shape[0] / luma.shape[0]
    factor = max(1, int(own_sigma / 2))
    size = (math.ceil(plane.shape[0] / factor), math.ceil(plane.shape[1] / factor))
    return size, own_sigma / factor


def gaussian_taps(sigma: float) -> Tensor:
    """[2 * radius + 1] float32, cut at 3 sigma."""
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """[C, H, W] -> the same, convolved with a Gaussian cut at 3 sigma; the edge sample repeats."""
    taps = gaussian_taps(sigma).to(x.device)
    radius = len(taps) // 2
    x = F.pad(x[:, None], (radius, radius, radius, radius), mode="replicate")
    x = F.conv2d(x, taps[None, None, None, :])
    return F.conv2d(x, taps[None, None, :, None])[:, 0]

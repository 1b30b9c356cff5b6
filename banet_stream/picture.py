"""Single pictures: cut out, put before another background, and looked into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import cutout, ops
from .background import Background, Transparent, open_background
from .compositing import put_before
from .errors import BackgroundError
from .frame import BT709, FULL, PIXEL_FORMATS, Colour, Frame, rgb_of
from .matting import Matter, following, mean_of_both, mended, network_size, with_mirrored
from .network import MEAN, STD
from .timings import Timings

# How a picture travels: nothing subsampled, and 12 bits, so that a soft edge can be divided by its alpha.
PICTURE_FORMAT = PIXEL_FORMATS["yuv444p12le"]
PICTURE_COLOUR = Colour("bt709", full_range=True, space=BT709, primaries=BT709, transfer=BT709)
assert PICTURE_COLOUR.range == FULL


def replace_background(
    rgb: NDArray[np.uint8], *, background: str | Path | Background = "blur", matter: Matter | None = None
) -> NDArray[np.uint8]:
    """One picture with its people before another background.

    Args:
        rgb: uint8 [H, W, 3], RGB.
        background: as ``--bg`` takes it, or a Background.
        matter: None makes one with the defaults.

    Returns:
        uint8 [H, W, 3].
    """
    frame = frame_of(rgb)
    alpha = (matter or Matter()).stream(mirrored=True).network_alpha(frame).cpu()
    return rgb_of(composited(frame, alpha, background))


def cut_out(rgb: NDArray[np.uint8], *, matter: Matter | None = None) -> NDArray[np.uint8]:
    """The people of one picture with nothing behind them.

    Args:
        rgb: uint8 [H, W, 3], RGB.
        matter: None makes one with the defaults.

    Returns:
        uint8 [H, W, 4]: RGB with straight alpha; the old background's colour is taken out of soft edges.
    """
    frame = frame_of(rgb)
    cut = cutout.cut_out(frame, (matter or Matter()).stream(mirrored=True).network_alpha(frame).cpu())
    assert cut.alpha is not None  # what a cut-out is for
    picture = np.dstack([rgb_of(cut), np.round(cut.alpha.numpy() * 255).astype(np.uint8)])
    opaque = picture[..., 3] == 255
    picture[opaque, :3] = rgb[opaque]  # untouched where it is surely subject
    return picture


@dataclass(frozen=True)
class Explanation:
    """What the network saw in a picture and made of it; h, w are the network's size."""

    alpha: NDArray[np.float32]  # [H, W] in 0..1
    boundary: NDArray[np.float32]  # [h, w] in 0..1: the boundary attention map (paper, 3.1)
    magnitude: NDArray[np.float32]  # [h, w]: the gradient calculation layer's (paper, 3.3), of the picture
    direction: NDArray[np.float32]  # [2, h, w]: unit vectors, x to the right, y downwards
    result: NDArray[np.uint8]  # [H, W, 3]: before the background
    seconds: dict[str, float]  # by operation, in the order they ran


def explain(
    rgb: NDArray[np.uint8], *, background: str | Path | Background = "blur", matter: Matter | None = None
) -> Explanation:
    """The inside of one picture's way through the network; arguments as in ``replace_background``."""
    matter, timings = matter or Matter(), Timings()
    frame = frame_of(rgb)
    with timings("to input"):
        size = network_size(frame.height, frame.width, matter.size)
        image = ops.frame_to_input(
            frame.planes, size=size, matrix="bt709", full_range=True, depth=12, mean=MEAN, std=STD
        )
    with timings("network"):
        alphas, boundary = matter.engine.outputs(with_mirrored(image))
        alpha = following(mean_of_both(alphas), image)
    small = mended(alpha[0, 0].cpu())
    with timings("composite"):
        result = composited(frame, small, background)
    with timings("full-size matte"):
        large = ops.upsample_alpha(small, frame.planes[0], depth=PICTURE_FORMAT.depth)
    with timings("gradients"):
        seen = image * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        magnitude, direction = ops.sobel_gradient(seen)
    return Explanation(
        alpha=large.numpy(),
        boundary=boundary[0, 0].cpu().numpy(),
        magnitude=magnitude[0, 0].numpy(),
        direction=direction[0].numpy(),
        result=rgb_of(result),
        seconds=timings.seconds,
    )


def frame_of(rgb: NDArray[np.uint8]) -> Frame:
    """A picture as the pipeline takes it.

    Raises:
        ValueError: when it is not uint8 [H, W, 3].
    """
    if not isinstance(rgb, np.ndarray):
        raise ValueError(f"rgb must be uint8 [H, W, 3], got {type(rgb).__name__}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise ValueError(f"rgb must be uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    planes = ops.rgb_to_planes(
        torch.from_numpy(np.require(rgb, requirements=["C", "W"])).float() / 255,
        matrix=PICTURE_COLOUR.matrix,
        full_range=PICTURE_COLOUR.full_range,
        depth=PICTURE_FORMAT.depth,
        subsampling=PICTURE_FORMAT.subsampling,
    )
    return Frame(planes, PICTURE_FORMAT, PICTURE_COLOUR, pts=0, time_base=Fraction(1))


def composited(frame: Frame, alpha: Tensor, background: str | Path | Background) -> Frame:
    """``frame`` before ``background``; one that is named is opened and closed here.

    Raises:
        BackgroundError: when it can't be had, or is none.
    """
    behind = background if isinstance(background, Background) else open_background(background)
    if isinstance(behind, Transparent):
        raise BackgroundError("transparent: here the result has no alpha; cut_out gives one that has")
    behind.suit(None)
    close: Callable[[], None] = (lambda: None) if behind is background else behind.close
    try:
        return put_before(frame, alpha, behind, Timings())
    finally:
        close()

"""Frames to mattes: network input, engine, temporal smoothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from . import ops
from .background import Background, Transparent
from .cutout import cut_out
from .engines import TorchEngine, choose_device, choose_precision, load_network
from .frame import Frame, Packet
from .hdr import for_network, is_hdr
from .network import COARSEST_STRIDE, MEAN, STD
from .timings import Timings

DEFAULT_MODEL = "banet64"
DEFAULT_SIZE = 512
SMALLEST_SIZE, LARGEST_SIZE = 64, 4096

# The longer side of what the network sees is at least this (or ``size``): it was trained at 192 to 320.
SMALLEST_SEEN = 256

# Smoothing: where successive mattes differ by CERTAIN or more, the new one is taken as it is; where they
# agree, only STEADY of the difference is.
CERTAIN, STEADY = 0.25, 0.35
# A mean change of the normalised picture above this (a tenth of black to white) is a cut, or motion so fast
# that there is nothing to steady.
SCENE_CUT = 0.45


class Matter:
    """Takes people out of pictures.

    Args:
        model: ``banet64``, or the path of a .safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16`` (CUDA only).
        size: longest side of the picture as the network sees it, in pixels.

    Raises:
        WeightsError, DeviceError, ValueError: when one of these can't be had.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        size: int = DEFAULT_SIZE,
    ) -> None:
        if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
            raise ValueError(f"Matter: size must be between {SMALLEST_SIZE} and {LARGEST_SIZE}, got {size}")
        where = choose_device(device)
        self.model, self.size = model, size
        self.engine = TorchEngine(load_network(model), where, choose_precision(precision, where))

    @property
    def description(self) -> str:
        """What really runs, for people."""
        engine = self.engine
        return f"{self.model} on {engine.name} {engine.device}, {engine.precision}, size {self.size}"

    def alpha(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The matte of one picture, without memory of earlier ones.

        Args:
            rgb: uint8 [H, W, 3], RGB.

        Returns:
            float32 [H, W] in 0..1: how much of each pixel is person.
        """
        small, luma = self._see(rgb)
        alpha = self.engine(small)[0, 0]
        return ops.upsample_alpha(alpha.cpu(), luma).numpy()

    def stream(self) -> MatteStream:
        """For the frames of one video in order: mattes with memory, steadier than single ones."""
        return MatteStream(self)

    def _see(self, rgb: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Network input [1, 3, h, w] and luma [H, W] uint8 of a picture."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise ValueError(f"Matter.alpha: rgb must be uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
        picture = torch.from_numpy(np.ascontiguousarray(rgb)).float() / 255
        planes = ops.rgb_to_planes(picture, matrix="bt709", full_range=True, subsampling=(1, 1))
        size = network_size(rgb.shape[0], rgb.shape[1], self.size)
        small = ops.frame_to_input(planes, size=size, matrix="bt709", full_range=True, mean=MEAN, std=STD)
        return small, planes[0]


class MatteStream:
    """Mattes of one video's frames, in order. Not for several threads at once."""

    def __init__(self, matter: Matter, timings: Timings | None = None) -> None:
        self.matter = matter
        self.timings = timings or Timings()
        self._previous: Tensor | None = None  # [1, 1, h, w]
        self._seen: Tensor | None = None  # [1, 3, h/16, w/16]: the last picture, to notice cuts

    def reset(self) -> None:
        """Forgets what came before: call it when the next frame does not follow the last."""
        self._previous = self._seen = None

    def alpha(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Like ``Matter.alpha``, for the next frame."""
        small, luma = self.matter._see(rgb)
        return ops.upsample_alpha(self._smooth(small)[0, 0].cpu(), luma).numpy()

    def network_alpha(self, frame: Frame) -> Tensor:
        """The matte of the next frame at network size: [h, w] float32 in 0..1, turned as it is coded."""
        aspect = frame.sample_aspect_ratio
        size = network_size(frame.height, frame.width, self.matter.size, aspect)
        with self.timings("to input"):
            high = is_hdr(frame.colour)
            coded = ops.frame_to_input(
                frame.planes,
                size=size,
                matrix=frame.colour.matrix,
                full_range=frame.colour.full_range,
                depth=frame.format.depth,
                mean=(0.0, 0.0, 0.0) if high else MEAN,
                std=(1.0, 1.0, 1.0) if high else STD,
            )
            if high:
                seen = for_network(coded.permute(0, 2, 3, 1), frame.colour)
                mean, std = (torch.tensor(values, device=seen.device) for values in (MEAN, STD))
                coded = ((seen - mean) / std).permute(0, 3, 1, 2).contiguous()
            turns = frame.rotation // 90
            upright = torch.rot90(coded, turns, (2, 3))
        with self.timings("network"):
            alpha = self._smooth(upright)
        return torch.rot90(alpha, -turns, (2, 3))[0, 0].contiguous()

    def _smooth(self, image: Tensor) -> Tensor:
        """The engine's matte [1, 1, h, w], steadied by the one before where both agree."""
        alpha = self.matter.engine(image)
        seen = F.avg_pool2d(image, 16)
        previous, before = self._previous, self._seen
        if previous is not None and before is not None and previous.shape == alpha.shape:
            cut = float((seen - before).abs().mean()) > SCENE_CUT
            if not cut:
                change = alpha - previous
                trust = STEADY + (1 - STEADY) * (change.abs() / CERTAIN).clamp(max=1)
                alpha = previous + trust * change
        self._previous, self._seen = alpha, seen
        return alpha


def network_size(
    height: int, width: int, longest: int, sample_aspect_ratio: Fraction = Fraction(1)
) -> tuple[int, int]:
    """Height and width the network sees: the frame's shape as shown, both sides multiples of 32.

    The longer side is ``longest``, or the frame's own where that is less, but not so little that people
    become smaller than any it was trained on.
    """
    shown = width * float(sample_aspect_ratio)
    own = max(height, shown)
    scale = min(longest, max(own, SMALLEST_SEEN)) / own
    return tuple(max(1, round(side * scale / COARSEST_STRIDE)) * COARSEST_STRIDE for side in (height, shown))  # type: ignore[return-value]


def matte(
    items: Iterable[Frame | Packet],
    stream: MatteStream,
    background: Background,
    *,
    keep_alpha: bool = False,
    watch: Callable[[Frame, Tensor], None] | None = None,
) -> Iterator[Frame | Packet]:
    """Every frame with its subject before ``background``; packets pass. The pipeline's middle stage.

    ``keep_alpha``: frames carry their matte at full size; so they do, with the subject's own colours, where
    the background is Transparent. ``watch`` is shown every frame with its matte at network size.
    """
    timings = stream.timings
    for item in items:
        if isinstance(item, Packet):
            yield item
            continue
        alpha = stream.network_alpha(item).cpu()
        if watch:
            watch(item, alpha)
        if isinstance(background, Transparent):
            with timings("composite"):
                cut = cut_out(item, alpha)
            yield cut
            continue
        with timings("background"):
            behind = background.planes(item, alpha)
        with timings("composite"):
            planes = ops.composite(
                item.planes,
                alpha,
                behind,
                depth=item.format.depth,
                subsampling=item.format.subsampling,
            )
        done = item.with_planes(planes)
        if keep_alpha:
            with timings("alpha"):
                full = ops.upsample_alpha(alpha, item.planes[0], depth=item.format.depth)
            done = replace(done, alpha=full)
        yield done

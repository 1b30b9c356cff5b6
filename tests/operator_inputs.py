"""Frames, mattes and devices for the operators' tests."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("FAIL_WITHOUT_CUDA") != "1",
    reason="no CUDA device; FAIL_WITHOUT_CUDA=1 makes this a failure",
)
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]

# Frame size, matte size: usual, odd, the frame smaller than the matte, one row, one column, one pixel.
SIZES = [
    ((72, 128), (36, 64)),
    ((71, 127), (33, 48)),
    ((135, 241), (36, 64)),
    ((20, 30), (36, 64)),
    ((1, 57), (8, 16)),
    ((43, 1), (8, 16)),
    ((1, 1), (8, 16)),
    ((50, 60), (1, 1)),
    ((64, 96), (64, 96)),
]
SUBSAMPLINGS = [(2, 2), (2, 1), (1, 1)]
DEPTHS = [8, 10]


def dtype_of(depth: int) -> torch.dtype:
    return torch.uint8 if depth == 8 else torch.int16


def frame(
    size: tuple[int, int],
    *,
    depth: int = 8,
    subsampling: tuple[int, int] = (2, 2),
    seed: int = 0,
    device: str = "cpu",
) -> list[Tensor]:
    """Three planes with large shapes, fine grain and the whole range of codes."""
    random = torch.Generator().manual_seed(seed)
    chroma = (-(-size[0] // subsampling[1]), -(-size[1] // subsampling[0]))
    planes = []
    for shape in (size, chroma, chroma):
        coarse = torch.rand(1, 1, 5, 6, generator=random)
        smooth = F.interpolate(coarse, size=shape, mode="bilinear")[0, 0]
        values = (0.85 * smooth + 0.15 * torch.rand(shape, generator=random)) * (2**depth - 1)
        planes.append(values.round().to(dtype_of(depth)).to(device))
    return planes


def matte(size: tuple[int, int], *, device: str = "cpu") -> Tensor:
    """[h, w] float32: a soft-edged ellipse, nearly 0 outside and nearly 1 inside, as a network gives."""
    y = torch.linspace(-1, 1, size[0])[:, None] if size[0] > 1 else torch.zeros(1, 1)
    x = torch.linspace(-1, 1, size[1])[None, :] if size[1] > 1 else torch.zeros(1, 1)
    distance = 1 - ((x / 0.5) ** 2 + ((y - 0.2) / 0.8) ** 2)
    return (0.003 + 0.994 * torch.sigmoid(12 * distance)).to(device)


def seen(size: tuple[int, int], *, seed: int = 0, device: str = "cpu") -> Tensor:
    """[3, h, w] float32: a picture as networks see it. On its left it has the edge of ``matte``, on its right
    nothing tells the two apart."""
    random = torch.Generator().manual_seed(seed)
    colours, grain = torch.randn(2, 3, 1, 1, generator=random), torch.randn(3, *size, generator=random)
    left = torch.arange(size[1]) < size[1] / 2
    return (colours[0] + left * matte(size) * colours[1] + 0.1 * grain).to(device)


def spread(plane: Tensor) -> Tensor:
    """The same values with rows and columns lying apart in memory."""
    apart = torch.zeros(plane.shape[0], plane.shape[1] * 3 + 5, dtype=plane.dtype, device=plane.device)
    apart[:, 2 : 2 + plane.shape[1] * 3 : 3] = plane
    return apart[:, 2 : 2 + plane.shape[1] * 3 : 3]


def padded(plane: Tensor) -> Tensor:
    """The same values in rows that lie further apart than they are long, as decoders give them."""
    apart = torch.full((plane.shape[0], plane.shape[1] + 13), 7, dtype=plane.dtype, device=plane.device)
    apart[:, : plane.shape[1]] = plane
    return apart[:, : plane.shape[1]]

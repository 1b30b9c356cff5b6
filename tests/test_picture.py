"""Single pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.data import astronaut
from torch.nn import functional as F

import banet_stream as banet
from banet_stream import Matter
from banet_stream.errors import BackgroundError


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    return np.ascontiguousarray(astronaut()[:301, 60:401])


def test_before_a_colour(portrait: NDArray[np.uint8], matter: Matter) -> None:
    result = banet.replace_background(portrait, background="#0000ff", matter=matter)
    alpha = matter.alpha(portrait)
    assert result.shape == portrait.shape
    assert result.dtype == np.uint8
    away = alpha == 0
    assert away.any()
    assert abs(result[away].astype(int) - (0, 0, 255)).max() <= 2
    # There and back through 12-bit YUV: rounding only. In 8 bits the matte's edge may be a pixel elsewhere.
    doubt = torch.from_numpy(alpha < 1)[None].float()
    core = F.max_pool2d(doubt, 3, 1, 1)[0].numpy() == 0
    assert core.any()
    assert abs(result[core].astype(int) - portrait[core]).max() <= 1


def test_cut_out_returns_to_the_picture_before_its_own_colour(
    portrait: NDArray[np.uint8], matter: Matter
) -> None:
    cut = banet.cut_out(portrait, matter=matter)
    assert cut.shape == (*portrait.shape[:2], 4)
    alpha = cut[..., 3:].astype(float) / 255
    # Matter.alpha follows the edges of 8-bit samples, this of 12-bit ones.
    assert abs(alpha[..., 0] - matter.alpha(portrait)).max() <= 0.06
    assert np.array_equal(cut[cut[..., 3] == 255][:, :3], portrait[cut[..., 3] == 255])
    # Laid over white it is what compositing over white gives.
    over = cut[..., :3] * alpha + 255 * (1 - alpha)
    white = banet.replace_background(portrait, background="white", matter=matter)
    assert abs(over - white).mean() < 1
    assert np.percentile(abs(over - white), 99) <= 6


def test_explain(portrait: NDArray[np.uint8], matter: Matter) -> None:
    told = banet.explain(portrait, background="white", matter=matter)
    assert abs(told.alpha - matter.alpha(portrait)).max() <= 0.06
    size = told.boundary.shape
    assert told.magnitude.shape == size
    assert told.direction.shape == (2, *size)
    assert 0 <= told.boundary.min() < told.boundary.max() <= 1
    length = np.hypot(*told.direction)
    assert np.all((abs(length - 1) < 1e-3) | (length == 0))
    assert told.result.shape == portrait.shape
    assert list(told.seconds) == ["to input", "network", "composite", "full-size matte", "gradients"]
    assert all(seconds > 0 for seconds in told.seconds.values())


@pytest.mark.parametrize("function", [banet.replace_background, banet.explain])
def test_nothing_behind_is_refused(function: Any, portrait: NDArray[np.uint8], matter: Matter) -> None:
    with pytest.raises(BackgroundError, match="cut_out gives one that has"):
        function(portrait, background="transparent", matter=matter)


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 4), (0, 10, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...], matter: Matter) -> None:
    with pytest.raises(ValueError, match=r"rgb must be uint8 \[H, W, 3\], got uint8"):
        banet.cut_out(np.zeros(shape, np.uint8), matter=matter)


def test_another_size_shares_the_network(matter: Matter) -> None:
    other = matter.at_size(128)
    assert (other.size, matter.size) == (128, 320)
    assert other.engine is matter.engine
    assert "size 128" in other.description
    with pytest.raises(ValueError, match="size must be between 64 and 4096, got 5"):
        matter.at_size(5)

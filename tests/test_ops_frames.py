"""The operators on frames: every kernel against its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import (
    DEPTHS,
    DEVICES,
    SIZES,
    SUBSAMPLINGS,
    frame,
    matte,
    needs_cuda,
    padded,
    seen,
    spread,
)
from tolerances import ALPHA_SCALE, COLOUR_STEP, FILTER_SCALE, assert_floats, assert_samples
from torch import Tensor

from banet_stream import backends, ops, reference
from banet_stream.reference import box


@pytest.fixture(scope="module", autouse=True)
def whole_floats() -> Iterator[None]:
    """The references convolve in float32 on a GPU, too: TF32, cuDNN's default, keeps 10 of its 23 bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert not torch.backends.cuda.matmul.allow_tf32  # as PyTorch has it by itself
        yield


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    """What the fastest backend gives, and the reference."""
    with backends.using("compiled"):
        actual = call()
    with backends.using("reference"):
        return actual, call()


# --- guided_filter -------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 9), (9, 1), (2, 40), (33, 47), (64, 65), (130, 7), (256, 448), (288, 512)]
)
def test_guided_filter_equals_its_reference(size: tuple[int, int], device: str) -> None:
    alpha, image = matte(size, device=device), seen(size, device=device)
    apart = torch.stack([spread(channel) for channel in image]).mT.contiguous().mT
    for one, other in product((alpha, spread(alpha)), (image, apart)):
        found = both(lambda one=one, other=other: ops.guided_filter(one, other))
        assert_floats(*found, scale=FILTER_SCALE[device])


@pytest.mark.parametrize("device", DEVICES)
def test_guided_filter_of_what_is_no_number(device: str) -> None:
    """No person in a matte, the mean colour in a picture: all else is as if it had been so."""
    alpha, image = matte((40, 60), device=device), seen((40, 60), device=device)
    bad_alpha, bad_image = alpha.clone(), image.clone()
    bad_alpha[20, 30], alpha[20, 30] = float("nan"), 0
    bad_image[:, 5, 25], image[:, 5, 25] = torch.tensor([float("nan"), float("inf"), -float("inf")]), 0
    for backend in ("compiled", "reference"):
        with backends.using(backend):
            found = ops.guided_filter(bad_alpha, bad_image)
            assert torch.equal(found, ops.guided_filter(alpha, image))
        assert found.isfinite().all()


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 100))
def test_guided_filter_of_any_size_stays_among_its_neighbours(height: int, width: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    alpha = torch.rand(height, width, generator=random) * (torch.rand(height, width, generator=random) < 0.3)
    actual, expected = both(lambda: ops.guided_filter(alpha, seen((height, width), seed=seed)))
    assert_floats(actual, expected)
    most = torch.nn.functional.max_pool2d(alpha[None], 3, 1, 1)[0]
    least = -torch.nn.functional.max_pool2d(-alpha[None], 3, 1, 1)[0]
    assert (actual <= most + 1e-6).all()
    assert (actual >= least - 1e-6).all()


def test_guided_filter_finds_the_edge_of_a_blurred_matte() -> None:
    sharp = (torch.arange(64) >= 31).float().expand(48, 64)
    colour = torch.tensor([0.5, -1.0, 1.5])[:, None, None]
    blurred = box(sharp[None], 2)[0]
    found = ops.guided_filter(blurred, sharp * colour)
    assert (found - sharp).abs().mean() < 0.7 * (blurred - sharp).abs().mean()


def test_guided_filter_leaves_what_colours_do_not_explain() -> None:
    """Somebody of the background's colours, and where all is sure."""
    alpha, random = matte((64, 96)), torch.Generator().manual_seed(1)
    assert (ops.guided_filter(alpha, torch.randn(3, 64, 96, generator=random)) == alpha).float().mean() > 0.95
    assert torch.equal(ops.guided_filter(alpha, torch.zeros(3, 64, 96)), alpha)
    sure = (alpha > 0.5).float()
    filtered = ops.guided_filter(sure, seen((64, 96)))
    inside = -torch.nn.functional.max_pool2d(-sure[None], 3, 1, 1)[0] == 1
    assert (filtered[inside] == 1).all()


# --- steady_alpha --------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (33, 47), (288, 512)])
def test_steady_alpha_equals_its_reference(size: tuple[int, int], device: str) -> None:
    random = torch.Generator().manual_seed(5)
    now, before = (torch.rand(size, generator=random).to(device) for _ in range(2))
    now[0, 0] = float("nan")
    assert_floats(*both(lambda: ops.steady_alpha(now, before, certain=0.25, steady=0.35)))
    assert_floats(*both(lambda: ops.steady_alpha(spread(now), before, certain=0.25, steady=0.35)))


@settings(max_examples=50, deadline=None)
@given(
    alpha=st.floats(0, 1, width=32),
    previous=st.floats(0, 1, width=32),
    certain=st.floats(0.01, 1),
    steady=st.floats(0, 1),
)
def test_steady_alpha_lies_between_the_two(
    alpha: float, previous: float, certain: float, steady: float
) -> None:
    now, before = torch.full((1, 1), alpha), torch.full((1, 1), previous)
    with backends.using("compiled"):
        out = ops.steady_alpha(now, before, certain=certain, steady=steady).item()
    assert min(alpha, previous) - 1e-6 <= out <= max(alpha, previous) + 1e-6
    if abs(alpha - previous) >= certain:
        assert out == pytest.approx(alpha, abs=1e-6)


# --- fade_islands --------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (33, 47), (96, 160)])
@pytest.mark.parametrize("share", [0.0, 0.35, 0.45, 0.7, 1.0])
def test_fade_islands_and_fill_holes_equal_their_reference(
    size: tuple[int, int], share: float, device: str
) -> None:
    random = torch.Generator().manual_seed(6)
    # Noise: snakes, combs and islands in lakes of islands, of all shares of the picture.
    alpha = torch.rand(size, generator=random) * (torch.rand(size, generator=random) < share)
    alpha[0, 0] = float("nan")
    alpha = alpha.to(device)
    for matte_in in (alpha, spread(alpha)):
        assert_floats(*both(lambda a=matte_in: ops.fade_islands(a)))
        assert_floats(*both(lambda a=matte_in: ops.fill_holes(a)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 24), st.floats(0.2, 1.0))
def test_islands_that_stay_hold_what_hangs_on_them(seed: int, height: int, width: int, share: float) -> None:
    measure = pytest.importorskip("skimage.measure")
    reconstruction = pytest.importorskip("skimage.morphology").reconstruction
    alpha = torch.rand((height, width), generator=torch.Generator().manual_seed(seed))
    alpha *= torch.rand((height, width), generator=torch.Generator().manual_seed(seed + 1)) < share
    faded = ops.fade_islands(alpha)
    assert (faded <= alpha).all()
    shown = alpha > reference.ALPHA_FLOOR
    assert torch.equal(faded[~shown], alpha[~shown])
    islands = measure.label((alpha > reference.ISLAND_CORE).numpy(), connectivity=2)
    if not islands.any():
        assert torch.equal(faded, alpha)
        return
    mass = np.bincount(islands.flatten(), alpha.flatten())
    mass[0] = 0
    surely = np.isin(islands, np.flatnonzero(mass > reference.SMALL_ISLAND[1] * mass.max()))
    ground = (alpha * shown).numpy()
    held = reconstruction(surely * ground, ground, footprint=np.ones((3, 3))) == ground
    held &= shown.numpy()
    assert np.array_equal(faded.numpy()[held], ground[held])
    assert np.array_equal(faded.numpy()[surely], ground[surely])


def test_which_islands_fade() -> None:
    alpha = torch.zeros(60, 100)
    alpha[:, :40] = 1.0  # somebody
    alpha[20:25, 40:44] = 0.3  # and a wisp of hair
    alpha[10:15, 50:60] = 0.8  # a ghost: small and unsure
    alpha[30:35, 50:60] = 1.0  # a hand: small and sure
    alpha[:, 70:90] = 0.7  # large and unsure
    alpha[40:45, 50:60] = 0.45  # nowhere more likely than not
    alpha[50:, 50:60] = 0.19  # below the floor: not shown anyway
    faded = ops.fade_islands(alpha)
    expected = alpha.clone()
    expected[10:15, 50:60] = 0.0
    expected[40:45, 50:60] = 0.0
    torch.testing.assert_close(faded, expected)


@pytest.mark.parametrize(
    ("bridge", "kept"), [(0.19, 0.0), (0.2, 0.0), (0.26, 0.039), (0.35, 0.375), (0.41, 0.7), (0.5, 0.8)]
)
def test_a_ghost_stays_as_far_as_it_hangs_together_with_somebody(bridge: float, kept: float) -> None:
    """What a hair's breadth of the bridge's alpha decides would come and go from frame to frame."""
    alpha = torch.zeros(20, 60)
    alpha[:, :30] = 1.0
    alpha[8:12, 40:46] = 0.8
    alpha[9, 30:40] = bridge
    for backend in ("compiled", "reference"):
        with backends.using(backend):
            faded = ops.fade_islands(alpha)
        torch.testing.assert_close(faded[8:12, 40:46], torch.full((4, 6), kept))
        torch.testing.assert_close(faded[9, 30:40], torch.full((10,), bridge))


def test_a_ghost_hangs_together_through_others() -> None:
    alpha = torch.zeros(20, 90)
    alpha[:, :30] = 1.0
    alpha[9, 30:40], alpha[8:12, 40:46] = 0.6, 0.9  # an arm, and its hand; beyond it:
    alpha[9, 46:56], alpha[8:12, 56:62] = 0.41, 0.8
    faded = ops.fade_islands(alpha)
    torch.testing.assert_close(faded[:, :56], alpha[:, :56])
    torch.testing.assert_close(faded[8:12, 56:62], torch.full((4, 6), 0.7))


def test_which_holes_fill() -> None:
    alpha = torch.zeros(120, 200)
    alpha[20:, 40:160] = 1.0
    alpha[40:44, 60:64] = 0.4  # a badge, perhaps
    alpha[40:44, 80:84] = 0.0  # a gap that is surely one
    alpha[60:80, 60:80] = 0.4  # as unsure, and large
    alpha[60:80, 100:120] = 0.9  # no hole
    alpha[40:44, 157:] = 0.4  # a dent in the edge
    filled = ops.fill_holes(alpha)
    expected = alpha.clone()
    expected[40:44, 60:64] = 1.0
    torch.testing.assert_close(filled, expected)
    for room in (torch.zeros(9, 9), torch.full((9, 9), 0.3), torch.ones(9, 9)):
        assert torch.equal(ops.fill_holes(room), room)


# --- composite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize(("size", "matte_size"), SIZES)
def test_composite_equals_its_reference(
    size: tuple[int, int], matte_size: tuple[int, int], subsampling: tuple[int, int], depth: int, device: str
) -> None:
    front = frame(size, depth=depth, subsampling=subsampling, device=device)
    back = frame(size, depth=depth, subsampling=subsampling, seed=1, device=device)
    alpha = matte(matte_size, device=device)
    for upsampling, decontaminate, light_wrap in product(ops.UPSAMPLINGS, (True, False), (0.0, 0.6)):
        assert_samples(
            *both(
                lambda u=upsampling, d=decontaminate, w=light_wrap: ops.composite(
                    front,
                    alpha,
                    back,
                    depth=depth,
                    subsampling=subsampling,
                    upsampling=u,
                    decontaminate=d,
                    light_wrap=w,
                )
            )
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_composite_of_a_noisy_matte(depth: int, device: str) -> None:
    # Soft everywhere: no span is copied.
    alpha = torch.rand(40, 60, generator=torch.Generator().manual_seed(3)).to(device)
    front, back = (
        frame((81, 133), depth=depth, device=device),
        frame((81, 133), depth=depth, seed=1, device=device),
    )
    assert_samples(*both(lambda: ops.composite(front, alpha, back, depth=depth)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("depth", DEPTHS)
def test_composite_leaves_certain_samples_bit_identical(value: float, depth: int, device: str) -> None:
    front, back = (
        frame((61, 87), depth=depth, device=device),
        frame((61, 87), depth=depth, seed=1, device=device),
    )
    alpha = torch.full((20, 30), value, device=device)
    alpha[:, :12] = 1 - value  # and so is the other side, away from the edge
    with backends.using("compiled"):
        out = ops.composite(front, alpha, back, depth=depth, light_wrap=0.5)
    for got, subject, behind in zip(out, front, back, strict=True):
        third = got.shape[1] // 3
        here, there = (subject, behind) if value else (behind, subject)
        assert torch.equal(got[:, -third:], here[:, -third:])
        assert torch.equal(got[:, : third // 2], there[:, : third // 2])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(45, 71), (9, 1), (2, 2), (1, 1)])
def test_composite_reads_strided_planes(size: tuple[int, int], device: str) -> None:
    front, back = frame(size, device=device), frame(size, seed=1, device=device)
    alpha = matte((24, 32), device=device)
    with backends.using("compiled"):
        plain = ops.composite(front, alpha, back)
        for layout in (spread, padded):
            out = ops.composite([layout(p) for p in front], spread(alpha), [layout(p) for p in back])
            assert all(map(torch.equal, out, plain))


@pytest.mark.parametrize("device", DEVICES)
def test_not_a_number_counts_as_background(device: str) -> None:
    front, back = frame((48, 64), device=device), frame((48, 64), seed=1, device=device)
    alpha = torch.full((12, 16), float("nan"), device=device)
    for backend in ("compiled", "reference"):
        with backends.using(backend):
            assert all(map(torch.equal, ops.composite(front, alpha, back), back))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    subsampling=st.sampled_from(SUBSAMPLINGS),
    seed=st.integers(0, 1000),
)
def test_composite_of_any_size(
    height: int, width: int, rows: int, columns: int, subsampling: tuple[int, int], seed: int, device: str
) -> None:
    front, back = (
        frame((height, width), subsampling=subsampling, seed=seed + i, device=device) for i in range(2)
    )
    alpha = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    alpha = alpha.to(device)
    assert_samples(*both(lambda: ops.composite(front, alpha, back, subsampling=subsampling)))


@pytest.mark.parametrize("device", DEVICES)
def test_composite_of_4k(device: str) -> None:
    front, back = frame((2160, 3840), device=device), frame((2160, 3840), seed=1, device=device)
    alpha = matte((144, 256), device=device)
    assert_samples(*both(lambda: ops.composite(front, alpha, back)))


# --- upsample_alpha and masked_blur ----------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("upsampling", ops.UPSAMPLINGS)
@pytest.mark.parametrize(("size", "matte_size"), SIZES)
def test_upsample_alpha_equals_its_reference(
    size: tuple[int, int], matte_size: tuple[int, int], upsampling: str, depth: int, device: str
) -> None:
    luma, alpha = frame(size, depth=depth, device=device)[0], matte(matte_size, device=device)
    actual, expected = both(lambda: ops.upsample_alpha(alpha, luma, depth=depth, upsampling=upsampling))
    assert_floats(actual, expected, scale=ALPHA_SCALE)
    assert torch.equal(actual == 1, expected == 1) or upsampling == "guided"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(45, 71), (9, 1), (1, 1)])
def test_upsample_alpha_reads_strided_planes(size: tuple[int, int], device: str) -> None:
    luma, alpha = frame(size, device=device)[0], matte((24, 32), device=device)
    with backends.using("compiled"):
        plain = ops.upsample_alpha(alpha, luma)
        for layout in (spread, padded):
            assert torch.equal(ops.upsample_alpha(spread(alpha), layout(luma)), plain)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("sigma", [0.5, 3.0, 9.5, 40.0])
@pytest.mark.parametrize(("size", "matte_size"), SIZES)
def test_masked_blur_equals_its_reference(
    size: tuple[int, int], matte_size: tuple[int, int], sigma: float, depth: int, device: str
) -> None:
    planes, alpha = frame(size, depth=depth, device=device), matte(matte_size, device=device)
    assert_samples(*both(lambda: ops.masked_blur(planes, alpha, sigma=sigma, depth=depth)))


@pytest.mark.parametrize("device", DEVICES)
def test_masked_blur_reads_strided_planes(device: str) -> None:
    planes, alpha = frame((45, 71), device=device), matte((24, 32), device=device)
    with backends.using("compiled"):
        plain = ops.masked_blur(planes, alpha, sigma=9.5)
        for layout in (spread, padded):
            out = ops.masked_blur([layout(p) for p in planes], spread(alpha), sigma=9.5)
            assert all(map(torch.equal, out, plain))


@pytest.mark.parametrize("device", DEVICES)
def test_masked_blur_leaves_the_subject_out(device: str) -> None:
    # A white subject before black: not a trace of it in what is seen around it.
    alpha = torch.zeros(36, 64, device=device)
    alpha[8:28, 20:44] = 1
    luma = torch.zeros(144, 256, dtype=torch.uint8, device=device)
    luma[32:112, 80:176] = 255
    with backends.using("compiled"):
        blurred = ops.masked_blur([luma, luma[::2, ::2], luma[::2, ::2]], alpha, sigma=16)[0]
    assert blurred.max() <= 2


# --- frame_to_input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 48), (65, 33)])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_pictures_are_converted_in_bands(
    size: tuple[int, int], subsampling: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody can tell, whether or not a band ends at the last row."""
    monkeypatch.setattr(ops, "BAND_PIXELS", 300)
    rgb = torch.rand(*size, 3, generator=torch.Generator().manual_seed(0))
    kind: Any = {"matrix": "bt709", "full_range": True, "depth": 12, "subsampling": subsampling}
    for found, wanted in zip(
        ops.rgb_to_planes(rgb, **kind), reference.rgb_to_planes(rgb, **kind), strict=True
    ):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ops.MATRICES)
@pytest.mark.parametrize("depth", ops.DEPTHS)
def test_frame_to_input_is_within_one_step_of_exact_colour(
    depth: int, matrix: str, full_range: bool, device: str
) -> None:
    planes = frame((40, 56), depth=depth, subsampling=(1, 1), device=device)
    with backends.using("compiled"):
        actual = ops.frame_to_input(planes, size=(40, 56), matrix=matrix, full_range=full_range, depth=depth)
    red, blue = reference.LUMA_WEIGHTS[matrix]
    scale = reference.YuvScale.of(full_range, depth)
    y, u, v = (p.double() for p in planes)
    y, u, v = (y - scale.black) / scale.luma, (u - scale.grey) / scale.chroma, (v - scale.grey) / scale.chroma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    exact = torch.stack([r, (y - red * r - blue * b) / (1 - red - blue), b]).clamp(0, 1)
    assert (actual[0].double() - exact).abs().max() < COLOUR_STEP


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize(("size", "target"), SIZES)
def test_frame_to_input_equals_its_reference(
    size: tuple[int, int], target: tuple[int, int], subsampling: tuple[int, int], depth: int, device: str
) -> None:
    planes = frame(size, depth=depth, subsampling=subsampling, device=device)
    for dtype in ops.INPUT_DTYPES:
        for channels_last in (False, True):
            actual, expected = both(
                lambda d=dtype, c=channels_last: ops.frame_to_input(
                    planes,
                    size=target,
                    matrix="bt709",
                    full_range=False,
                    depth=depth,
                    mean=(0.485, 0.456, 0.406),
                    std=(0.229, 0.224, 0.225),
                    dtype=d,
                    channels_last=c,
                )
            )
            assert_floats(actual, expected, scale=3)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert actual.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_frame_to_input_reads_semi_planar_and_strided_planes(depth: int, device: str) -> None:
    y, u, v = frame((46, 70), depth=depth, device=device)
    both_chroma = torch.stack([u, v], -1).flatten(1)

    def converted(planes: list[Tensor]) -> Tensor:
        return ops.frame_to_input(planes, size=(20, 32), matrix="bt601", full_range=True, depth=depth)

    with backends.using("compiled"):
        plain = converted([y, u, v])
        assert torch.equal(converted([padded(y), padded(both_chroma)]), plain)
        assert torch.equal(converted([spread(y), spread(u), spread(v)]), plain)


@pytest.mark.parametrize("device", DEVICES)
def test_frame_to_input_rounds_16_bit_floats_as_torch_does(device: str) -> None:
    planes = frame((64, 64), depth=10, subsampling=(1, 1), device=device)
    # Tiny standard deviations reach large, small and subnormal values.
    for std in (1e-4, 1.0, 3e3, 1e6):
        for dtype in (torch.float16, torch.bfloat16):
            exact, rounded = (
                ops.frame_to_input(
                    planes, size=(64, 64), matrix="bt709", full_range=True, depth=10,
                    mean=(0.5,) * 3, std=(std,) * 3, dtype=d,
                )
                for d in (torch.float32, dtype)
            )  # fmt: skip
            assert torch.equal(rounded, exact.to(dtype))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    rows=st.integers(1, 50),
    columns=st.integers(1, 50),
    matrix=st.sampled_from(ops.MATRICES),
)
def test_frame_to_input_of_any_size(
    height: int, width: int, rows: int, columns: int, matrix: str, device: str
) -> None:
    planes = frame((height, width), seed=height * width, device=device)
    assert_floats(
        *both(lambda: ops.frame_to_input(planes, size=(rows, columns), matrix=matrix, full_range=False))
    )


# --- all -----------------------------------------------------------------------------------------------


def operator_calls(device: str) -> dict[str, Callable[[], Any]]:
    planes, back, alpha = (
        frame((96, 128), device=device),
        frame((96, 128), seed=1, device=device),
        matte((36, 64), device=device),
    )
    return {
        "composite": lambda: ops.composite(planes, alpha, back),
        "upsample_alpha": lambda: [ops.upsample_alpha(alpha, planes[0])],
        "masked_blur": lambda: ops.masked_blur(planes, alpha, sigma=8),
        "frame_to_input": lambda: [
            ops.frame_to_input(planes, size=(40, 60), matrix="bt709", full_range=False)
        ],
        "guided_filter": lambda: [ops.guided_filter(alpha, seen((36, 64), device=device))],
        "steady_alpha": lambda: [ops.steady_alpha(alpha, alpha.roll(5, 1), certain=0.25, steady=0.35)],
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(operator_calls("cpu")))
def test_every_run_gives_the_same_bits(name: str, device: str) -> None:
    call = operator_calls(device)[name]
    threads = torch.get_num_threads()
    first = call()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, call(), first))
    finally:
        torch.set_num_threads(threads)


@needs_cuda
@pytest.mark.parametrize("name", sorted(operator_calls("cpu")))
def test_cupy_on_cuda_equals_the_reference(name: str) -> None:
    pytest.importorskip("cupy")
    call = operator_calls("cuda")[name]
    with backends.using("cupy"):
        actual = call()
    with backends.using("reference"):
        expected = call()
    for got, wanted in zip(actual, expected, strict=True):
        if got.is_floating_point():
            assert_floats(got, wanted, scale=ALPHA_SCALE)
        else:
            assert_samples([got], [wanted])


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    planes, alpha = frame((20, 30), device=device), matte((8, 16), device=device)
    operators, on_cpu = torch.ops.banet_stream, alpha.cpu()
    options = (True, 2, 4e-4, 0.05, 0.95)
    torch.library.opcheck(
        operators.composite, (*planes, alpha, *planes, 8, 2, 2, *options, 2, 4, 1, 1e-4, True, 0.5)
    )
    for operator in (operators.fade_islands, operators.fill_holes):
        torch.library.opcheck(operator, (on_cpu, 0.2, 0.5, 0.08, 0.12, 0.9, 0.95, 0.25, 0.75))
    filtered = (8, 2e-4, 1e-4, 0.5, 0.9, 1, 0.05, 1e-9)
    torch.library.opcheck(operators.guided_filter, (alpha, seen((8, 16), device=device), *filtered))
    torch.library.opcheck(operators.steady_alpha, (alpha, alpha.roll(5, 1), 0.25, 0.35))
    torch.library.opcheck(operators.upsample_alpha, (alpha, planes[0], 8, *options))
    torch.library.opcheck(operators.masked_blur, (planes[0], alpha, 8, 10, 15, 1.5, 1e-4))
    scale, mean = [0.3, 0.1, 16.0, 219.0, 128.0, 224.0], [0.5, 0.5, 0.5]
    for dtype, last in ((torch.float32, False), (torch.float16, True)):
        torch.library.opcheck(operators.frame_to_input, (*planes, 8, 12, scale, mean, mean, dtype, last))

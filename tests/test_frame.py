from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from banet_stream.decode import Source, decode
from banet_stream.fitting import refit
from banet_stream.frame import (
    PIXEL_FORMATS,
    Colour,
    Frame,
    colour_of,
    is_mirrored,
    nearest_format,
    planes_of,
    to_video_frame,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yuv420p", "yuv420p"),
        ("yuvj420p", "yuv420p"),
        ("yuvj444p", "yuv444p"),
        ("yuva420p", "yuv420p"),
        ("yuv422p10le", "yuv422p10le"),
        ("yuv420p12le", "yuv420p12le"),
        ("nv12", "yuv420p"),
        ("p010le", "yuv420p10le"),
        ("rgb24", "yuv444p"),
        ("gbrp10le", "yuv444p10le"),
        ("pal8", "yuv444p"),
        ("gray", "yuv420p"),
        ("yuyv422", "yuv422p"),
        ("yuv440p", "yuv444p"),
        ("yuv411p", "yuv444p"),
        ("yuv444p16le", "yuv444p12le"),
    ],
)
def test_nearest_format_keeps_what_is_there(name: str, expected: str) -> None:
    assert nearest_format(name).name == expected


@pytest.mark.parametrize("name", PIXEL_FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48)])
def test_planes_are_a_view_and_copy_back_unchanged(name: str, size: tuple[int, int]) -> None:
    layout = PIXEL_FORMATS[name]
    width, height = size
    video = av.VideoFrame(width, height, name)
    generator = torch.Generator().manual_seed(0)
    planes = planes_of(video, layout)
    for plane in planes:
        plane.copy_(torch.randint(0, 2**layout.depth, plane.shape, generator=generator))
    horizontal, vertical = layout.subsampling
    assert planes[0].shape == (height, width)
    assert planes[1].shape == (-(-height // vertical), -(-width // horizontal))
    assert all(torch.equal(a, b) for a, b in zip(planes, planes_of(video, layout), strict=True))
    frame = Frame(planes, layout, Colour("bt709", True, 1, 1, 1), 7, Fraction(1, 25))
    copy = to_video_frame(frame)
    assert all(torch.equal(a, b) for a, b in zip(planes, planes_of(copy, layout), strict=True))
    assert (copy.pts, copy.time_base) == (7, Fraction(1, 25))
    assert (int(copy.colorspace), int(copy.color_range)) == (1, 2)


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(640, 480, "bt601"), (720, 576, "bt601"), (1280, 720, "bt709"), (720, 1364, "bt709")],
)
def test_untagged_colour_follows_the_size(width: int, height: int, matrix: str) -> None:
    colour = colour_of(av.VideoFrame(width, height, "yuv420p"))
    assert colour.matrix == matrix
    assert not colour.full_range


def test_tags_win_over_size() -> None:
    video = av.VideoFrame(640, 480, "yuv420p10le")
    video.colorspace, video.color_range, video.color_primaries, video.color_trc = 9, 2, 9, 16
    colour = colour_of(video)
    assert colour == Colour("bt2020", True, 9, 9, 16)


def test_yuvj_is_full_range() -> None:
    assert colour_of(av.VideoFrame(64, 64, "yuvj420p")).full_range


def test_limited_yuvj_is_limited() -> None:
    """As a decoder gives it whose stream becomes limited on the way."""
    video = av.VideoFrame(64, 64, "yuvj420p")
    video.color_range = 1
    assert not colour_of(video).full_range


@pytest.mark.parametrize("name", ["nv12", "p010le", "yuva420p"])
def test_untagged_hd_keeps_its_samples_in_another_layout(name: str) -> None:
    """FFmpeg's scaler would take what has no tag for BT.601."""
    pixels = np.random.default_rng(0).integers(0, 256, (45, 80, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    plain = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p", dst_colorspace=1)
    picture = plain.reformat(format=name)
    plain.colorspace = picture.colorspace = 2
    layout = nearest_format(name)
    again = refit(picture, (1280, 720), layout, colour_of(picture))
    for was, now in zip(planes_of(plain, PIXEL_FORMATS["yuv420p"]), planes_of(again, layout), strict=True):
        assert (was.int() - (now.int() >> (layout.depth - 8))).abs().max() <= 1


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("name", "depth"), [("gray", 8), ("gray10le", 10)])
def test_grey_keeps_its_samples(tmp_path: Path, name: str, depth: int, full_range: bool) -> None:
    """FFmpeg's scaler would take limited range for full range."""
    top = 2**depth - 1
    low, high = (0, top) if full_range else (16 << (depth - 8), 235 << (depth - 8))
    luma = (
        np.random.default_rng(0).integers(low, high + 1, (48, 64)).astype(np.uint8 if depth == 8 else "<u2")
    )
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, name
        stream.codec_context.color_range = 2 if full_range else 1
        container.mux(stream.encode(av.VideoFrame.from_ndarray(luma, format=name)))
        container.mux(stream.encode(None))
    source = Source(path)
    frame = next(item for item in decode(source) if isinstance(item, Frame))
    assert frame.colour.full_range == full_range
    assert frame.format.depth == depth
    assert (frame.planes[0].numpy() == luma).all()
    assert all((plane.numpy() == 1 << (depth - 1)).all() for plane in frame.planes[1:])
    source.close()
    # In a stream that began in the other range.
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    other = replace(frame.colour, full_range=not full_range)
    black, white = (16 << (depth - 8), 235 << (depth - 8)) if full_range else (0, top)
    wanted = (luma.astype(float) - low) / (high - low) * (white - black) + black
    converted = planes_of(refit(picture, (64, 48), frame.format, other), frame.format)[0]
    assert np.abs(converted.numpy() - wanted).max() <= 2


def test_upright_rgb(clip: Callable[..., Path]) -> None:
    from conftest import portrait

    from banet_stream.frame import rgb_of

    source = Source(clip(width=128, height=96, rotation=90))
    frame = next(item for item in decode(source) if isinstance(item, Frame))
    upright = rgb_of(frame)
    assert upright.shape == (128, 96, 3)
    wanted = np.asarray(portrait(96, 128), np.int16)
    assert np.abs(upright.astype(np.int16) - wanted).mean() < 8
    source.close()


def test_looking_for_a_mirror_does_not_tie_frames_up() -> None:
    """They would pile up until Python's garbage collector comes by: 150 MiB at 720p."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            assert not is_mirrored(av.VideoFrame(16, 16, "yuv420p"))
        assert gc.collect() == 0
    finally:
        gc.enable()

"""Colours against an independent program: Debian's ffmpeg makes the source and reads the output."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from banet_stream import EncodeOptions, Matter, process

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to check with"),
    pytest.mark.usefixtures("left_half"),
]

WIDTH, HEIGHT, BAR = 224, 64, 16
COLOURS = [
    (255, 255, 255),
    (192, 192, 0),
    (0, 192, 192),
    (0, 192, 0),
    (192, 0, 192),
    (255, 0, 0),
    (0, 0, 255),
]
# Fourteen bars: the left seven stay (subject), before the right seven the background is put.
BARS = np.repeat(np.array([COLOURS + COLOURS], np.uint8), HEIGHT, 0).repeat(BAR, 1)
BACKGROUND = BARS[:, ::-1]
# FFmpeg's names, and H.273's numbers, of matrix, primaries and transfer.
SPACES = {
    "bt601": ("smpte170m", "smpte170m", "smpte170m"),
    "bt709": ("bt709", "bt709", "bt709"),
    "bt2020": ("bt2020nc", "bt2020", "bt2020-10"),
}
SCALE = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


@pytest.fixture(scope="module")
def halved() -> Matter:
    """Its matte: the left half is subject, whatever the picture."""
    return Matter(device="cpu", precision="float32", size=256)


def ffmpeg(*words: object, feed: bytes = b"") -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *(str(w) for w in words)]
    return subprocess.run(command, input=feed, capture_output=True, check=True).stdout


def make_source(
    path: Path, space: str, wide: str, pixel_format: str, *, tagged: bool = True, bars: np.ndarray = BARS
) -> Path:
    matrix, primaries, transfer = SPACES[space]
    tags = ["-colorspace", matrix, "-color_primaries", primaries, "-color_trc", transfer] if tagged else []
    height, width = bars.shape[:2]
    swscale = {"bt601": "bt601", "bt709": "bt709", "bt2020": "bt2020"}[space]
    filters = f"scale=out_color_matrix={swscale}:out_range={wide}:{SCALE},format={pixel_format}"
    ffmpeg(
        *["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-", "-vf", filters],
        *tags,
        *(["-color_range", wide] if tagged else []),
        *["-c:v", "ffv1", path],
        feed=bars.tobytes() * 2,
    )
    return path


def shown(path: Path, space: str, wide: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """The first frame, as ffmpeg decodes it: [H, W, 3]."""
    filters = f"scale=in_color_matrix={space}:in_range={wide}:out_range=pc:{SCALE},format=rgb24"
    raw = ffmpeg("-i", path, "-vf", filters, "-frames:v", "1", "-f", "rawvideo", "-")
    return np.frombuffer(raw, np.uint8).reshape(*size, 3).astype(int)


def probed(path: Path) -> dict[str, str]:
    names = "color_range,color_space,color_transfer,color_primaries,pix_fmt,chroma_location"
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", f"stream={names}"]
    answer = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, check=True).stdout
    return json.loads(answer)["streams"][0]


def middles(picture: np.ndarray) -> np.ndarray:
    """[14, 3]: the middle of every bar."""
    return picture[HEIGHT // 2 - 4 : HEIGHT // 2 + 4, BAR // 2 :: BAR].mean(0)


def in_2020(picture: np.ndarray) -> np.ndarray:
    """An ordinary picture in BT.2020's primaries, by ffmpeg's zscale."""
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    filters = "format=gbrp,zscale=min=gbr:pin=709:tin=709:p=2020:t=2020_10:m=gbr,format=gbrp,format=rgb24"
    words = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", "-", "-vf", filters]
    raw = ffmpeg(*words, "-f", "rawvideo", "-", feed=np.ascontiguousarray(picture).tobytes())
    return np.frombuffer(raw, np.uint8).reshape(picture.shape).astype(int)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("wide", ["tv", "pc"])
@pytest.mark.parametrize("depth", ["", "10le"])
@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
def test_bars_come_out_right(
    halved: Matter, tmp_path: Path, space: str, wide: str, depth: str, subsampling: str
) -> None:
    """Within 2 of 255, subject and background, and tagged as the source is."""
    pixel_format = f"yuv{subsampling}p{depth}"
    source = make_source(tmp_path / "in.mkv", space, wide, pixel_format)
    Image.fromarray(BACKGROUND).save(tmp_path / "behind.png")
    output = tmp_path / "out.mkv"
    process(
        source,
        output,
        background=str(tmp_path / "behind.png"),
        matter=halved,
        encoding=EncodeOptions("ffv1"),
    )
    behind = in_2020(BACKGROUND) if space == "bt2020" else BACKGROUND
    expected = np.concatenate([middles(shown(source, space, wide))[:7], middles(behind)[7:]])
    assert np.abs(middles(shown(output, space, wide)) - expected).max() <= 2
    assert np.abs(middles(shown(source, space, wide))[:7] - middles(BARS)[:7]).max() <= 2
    tags, before = probed(output), probed(source)
    assert tags == before
    assert (tags["color_space"], tags["color_primaries"], tags["color_transfer"]) == SPACES[space]
    assert tags["color_range"] == wide


@pytest.mark.parametrize(("size", "space"), [((64, 224), "bt601"), ((720, 1280), "bt709")])
def test_untagged_video_goes_by_its_size(
    halved: Matter, tmp_path: Path, size: tuple[int, int], space: str
) -> None:
    bars = np.asarray(Image.fromarray(BARS).resize(size[::-1], Image.Resampling.NEAREST))
    source = make_source(tmp_path / "in.mkv", space, "tv", "yuv420p", tagged=False, bars=bars)
    output = tmp_path / "out.mkv"
    process(source, output, background="#c000c0", matter=halved, encoding=EncodeOptions("ffv1"))
    picture = shown(output, space, "tv", size)
    corner = picture[:8, -8:].reshape(-1, 3).mean(0)
    assert np.abs(corner - [0xC0, 0, 0xC0]).max() <= 2
    assert probed(output)["color_space"] == SPACES[space][0]


@pytest.mark.parametrize(
    ("behind", "front"),
    [
        (("bt709", "pc", "yuv444p"), ("bt601", "tv", "yuv420p")),
        (("bt601", "tv", "yuv422p10le"), ("bt709", "pc", "yuv444p")),
        (("bt601", "pc", "yuv420p"), ("bt709", "tv", "yuv422p10le")),
    ],
)
def test_a_background_video_in_another_encoding(
    halved: Matter, tmp_path: Path, behind: tuple[str, str, str], front: tuple[str, str, str]
) -> None:
    background = make_source(tmp_path / "behind.mkv", *behind, bars=np.ascontiguousarray(BACKGROUND))
    source, output = make_source(tmp_path / "in.mkv", *front), tmp_path / "out.mkv"
    process(source, output, background=str(background), matter=halved, encoding=EncodeOptions("ffv1"))
    picture = middles(shown(output, front[0], front[1]))
    assert np.abs(picture[:7] - middles(BARS)[:7]).max() <= 2
    assert np.abs(picture[7:] - middles(BACKGROUND)[7:]).max() <= 2


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "h264"),
        (".mp4", "hevc"),
        (".mp4", "av1"),
        (".webm", "vp9"),
        (".mov", "prores"),
        (".mkv", "h264"),
    ],
)
def test_every_codec_is_tagged(halved: Matter, tmp_path: Path, suffix: str, codec: str) -> None:
    source = make_source(tmp_path / "in.mkv", "bt2020", "tv", "yuv420p10le")
    output = tmp_path / f"out{suffix}"
    process(source, output, background="green", matter=halved, encoding=EncodeOptions(codec))
    tags = probed(output)
    assert (tags["color_space"], tags["color_primaries"]) == SPACES["bt2020"][:2]
    assert tags["color_transfer"] == SPACES["bt2020"][2]
    assert tags.get("color_range", "tv") == "tv"


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "prores", "ffv1"])
def test_full_range_with_every_codec(halved: Matter, tmp_path: Path, codec: str) -> None:
    """ProRes has no word for it: what reads it takes it for limited, and so it must be."""
    source = make_source(tmp_path / "in.mkv", "bt709", "pc", "yuv420p")
    Image.fromarray(BACKGROUND).save(tmp_path / "behind.png")
    output, behind = tmp_path / "out.mkv", str(tmp_path / "behind.png")
    encoding = EncodeOptions(codec, crf=None if codec in ("prores", "ffv1") else 4)
    summary = process(source, output, background=behind, matter=halved, encoding=encoding, verify=True)
    assert summary.verification is not None
    assert not summary.verification.broken
    limited = codec == "prores"
    assert ("prores has limited range only: converted from full range" in summary.notices) == limited
    wide = "tv" if limited else "pc"
    assert probed(output)["color_range"] == wide
    expected = np.concatenate([middles(BARS)[:7], middles(BACKGROUND)[7:]])
    assert np.abs(middles(shown(output, "bt709", wide)) - expected).max() <= 3


def test_full_range_with_alpha_in_prores(halved: Matter, tmp_path: Path) -> None:
    source, output = make_source(tmp_path / "in.mkv", "bt709", "pc", "yuv444p"), tmp_path / "out.mov"
    process(source, output, background="transparent", matter=halved)
    filters = f"scale=in_color_matrix=bt709:in_range=tv:{SCALE},format=rgba"
    raw = ffmpeg("-i", output, "-vf", filters, "-frames:v", "1", "-f", "rawvideo", "-")
    picture = np.frombuffer(raw, np.uint8).reshape(HEIGHT, WIDTH, 4).astype(int)
    assert np.abs(middles(picture[..., :3])[:7] - middles(BARS)[:7]).max() <= 3
    alpha = middles(picture[..., 3:])[:, 0]
    assert alpha[:6].min() >= 254
    assert alpha[8:].max() <= 1

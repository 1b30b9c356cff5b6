"""HDR stays HDR: its curves by published numbers, its metadata by another program."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from test_colour import ffmpeg, make_source

from banet_stream import BackgroundError, EncodeOptions, Matter, OutputError, hdr, process
from banet_stream.decode import Source, decode
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame, planes_of
from banet_stream.hdr import HLG, PQ

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to check with")
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
LEVELS = "1000,400"


def test_known_points_of_the_curves() -> None:
    """ITU-R BT.2408, tables 1 and 2: diffuse white at 203 cd/m2 is 58 % of PQ and 75 % of HLG."""
    white = torch.full((1, 3), 203.0)
    assert float(hdr.pq_encode(white)[0, 0]) == pytest.approx(0.5807, abs=2e-4)
    assert float(hdr.hlg_encode(white)[0, 0]) == pytest.approx(0.75, abs=2e-3)
    assert float(hdr.pq_encode(torch.full((1, 3), 100.0))[0, 0]) == pytest.approx(0.5081, abs=2e-4)
    assert float(hdr.pq_encode(torch.full((1, 3), 10_000.0))[0, 0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("curve", ["pq", "hlg", "srgb", "bt709"])
def test_curves_and_their_inverses(curve: str) -> None:
    signal = torch.linspace(0.001, 1, 200)[:, None].repeat(1, 3)
    decoded = getattr(hdr, f"{curve}_decode")(signal)
    assert (decoded.diff(dim=0) > 0).all()
    torch.testing.assert_close(getattr(hdr, f"{curve}_encode")(decoded), signal, atol=1e-3, rtol=0)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_there_and_back(transfer: int) -> None:
    """What is placed in HDR looks to the network as it looked before, below the knee."""
    colour = Colour("bt2020", False, 9, 9, transfer)
    rgb = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 0.85
    again = hdr.for_network(hdr.place(rgb, colour), colour)
    torch.testing.assert_close(again, rgb, atol=6e-3, rtol=0)
    bright = hdr.for_network(torch.ones(1, 3), colour)
    assert 0.9 < float(bright.min()) <= 1


def hdr_source(path: Path, transfer: str = "smpte2084") -> Path:
    words = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25", "-frames:v", "4", "-pix_fmt", "yuv420p10le"]
    tags = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none"
    light = f":hdr10=1:master-display={DISPLAY}:max-cll={LEVELS}" if transfer == "smpte2084" else ""
    ffmpeg(*words, "-c:v", "libx265", "-x265-params", tags + light, path)
    return path


def side_data(path: Path) -> dict[str, dict[str, object]]:
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-read_intervals", "%+#1", "-show_frames"]
    answer = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, check=True).stdout
    sides = json.loads(answer)["frames"][0].get("side_data_list", [])
    return {s["side_data_type"]: s for s in sides if "light" in str(s).lower() or "luminance" in str(s)}


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_hdr_stays_with_its_metadata(tmp_path: Path, codec: str) -> None:
    source, output = hdr_source(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    matter = Matter(device="cpu", size=64)
    summary = process(
        source, output, background="white", matter=matter, verify=True, encoding=EncodeOptions(codec)
    )
    assert not summary.verification.broken
    before, after = side_data(source), side_data(output)
    assert before.keys() == after.keys()
    assert len(before) == 2
    for kind, facts in before.items():
        for name, value in facts.items():
            if name != "side_data_type":
                numbers = [as_number(v) for v in (value, after[kind][name])]
                assert numbers[0] == pytest.approx(numbers[1], rel=1e-3), name
    with closing(Source(output)) as result:
        frame = next(item for item in decode(result) if isinstance(item, Frame))
        assert (frame.colour.primaries, frame.colour.transfer, frame.colour.space) == (9, 16, 9)
        assert frame.format.depth == 10


def as_number(value: object) -> float:
    first, _, second = str(value).partition("/")
    return float(first) / float(second or 1)


@needs_ffmpeg
@pytest.mark.parametrize(("transfer", "code"), [("smpte2084", 0.5807), ("arib-std-b67", 0.75)])
def test_a_white_picture_is_put_at_diffuse_white(
    tmp_path: Path, transfer: str, code: float, every_matte: Callable[[torch.Tensor], list[Frame]]
) -> None:
    seen = every_matte(torch.zeros(32, 32))
    source, output = hdr_source(tmp_path / "in.mp4", transfer), tmp_path / "out.mkv"
    matter = Matter(device="cpu", size=64)
    process(source, output, background="white", matter=matter, encoding=EncodeOptions("ffv1"))
    assert seen
    with av.open(str(output)) as container:
        frame = next(container.decode(video=0))
        luma, u, v = (float(p.float().mean()) for p in planes_of(frame, PIXEL_FORMATS["yuv420p10le"]))
    assert luma == pytest.approx(64 + 876 * code, abs=3)
    assert abs(u - 512) < 2
    assert abs(v - 512) < 2


@needs_ffmpeg
def test_what_hdr_can_not_do(tmp_path: Path) -> None:
    source = hdr_source(tmp_path / "in.mp4")
    matter = Matter(device="cpu", size=64)
    ordinary = make_source(tmp_path / "behind.mkv", "bt709", "tv", "yuv420p")
    with pytest.raises(BackgroundError, match=r"SDR, BT.709 or BT.601, HDR \(PQ\), BT.2020"):
        process(source, tmp_path / "o.mp4", background=str(ordinary), matter=matter)
    with pytest.raises(OutputError, match="too coarse for HDR"):
        process(source, tmp_path / "o.webm", background="transparent", matter=matter)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["behind.mkv", "in.mp4"]
    summary = process(source, tmp_path / "o.mov", background="transparent", matter=matter)
    assert any("without HDR's mastering metadata" in n for n in summary.notices)
    assert np.isfinite(summary.fps)

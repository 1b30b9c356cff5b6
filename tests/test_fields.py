"""Interlaced video, made field by field: a bar moves between the two fields of every frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from banet_stream import Matter, cli, process
from banet_stream.background import open_background
from banet_stream.decode import Source, decode
from banet_stream.frame import Frame


def interlaced_clip(
    path: Path, *, marked: bool = True, frames: int = 12, pixel_format: str = "yuv420p"
) -> Path:
    options = {"crf": "8"} | ({"x264-params": "interlaced=1:tff=1"} if marked else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixel_format
        for index in range(12):
            picture = np.full((96, 128, 3), 30, np.uint8)
            for field in (0, 1):
                left = (2 * index + field) * 4
                picture[field::2, left : left + 20] = 220
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path, choice: str) -> tuple[list[Frame], Source]:
    source = Source(path, deinterlace=choice)
    frames = [item for item in decode(source) if isinstance(item, Frame)]
    source.close()
    return frames, source


def combing(plane: torch.Tensor) -> float:
    """How much every line differs from the two beside it."""
    rows = plane.float()
    return float((2 * rows[1:-1] - rows[:-2] - rows[2:]).abs().mean()) / float(rows.max())


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le"])
@pytest.mark.parametrize(
    ("marked", "choice", "whole"),
    [
        (True, "auto", True),
        (True, "on", True),
        (True, "off", False),
        (False, "auto", False),
        (False, "on", True),
    ],
)
def test_combs_go(tmp_path: Path, marked: bool, choice: str, whole: bool, pixel_format: str) -> None:
    path = interlaced_clip(tmp_path / "in.mp4", marked=marked, pixel_format=pixel_format)
    frames, source = frames_of(path, choice)
    assert [f.pts_seconds for f in frames] == pytest.approx([i / 25 for i in range(12)])
    assert source.lost_frames == source.damaged == 0
    combs = [combing(f.planes[0]) for f in frames[2:-2]]
    assert max(combs) < 0.02 if whole else min(combs) > 0.05
    assert any("deinterlaced" in n for n in source.notices) == whole


def test_progressive_video_is_not_touched(clip: object) -> None:
    path = clip()
    plain, filtered = frames_of(path, "off")[0], frames_of(path, "auto")[0]
    for a, b in zip(plain, filtered, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = interlaced_clip(tmp_path / "in.mp4")
    words = [str(path), "-o", str(tmp_path / "o.mp4"), "--size", "64", "--device", "cpu"]
    cli.main(words)
    assert "interlaced video: deinterlaced" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*words, "--deinterlace", "maybe"])
    with pytest.raises(ValueError, match="deinterlace must be one of auto, on, off"):
        process(path, tmp_path / "p.mp4", deinterlace="maybe", matter=Matter(size=64, device="cpu"))


def test_a_change_of_size_is_said(tmp_path: Path) -> None:
    joined = tmp_path / "joined.h264"
    with joined.open("wb") as file:
        for width in (64, 96):
            part = tmp_path / f"{width}.h264"
            with av.open(str(part), "w", format="h264") as container:
                stream = container.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
                for _ in range(5):
                    container.mux(stream.encode(av.VideoFrame(width, 64, "yuv420p")))
                container.mux(stream.encode(None))
            file.write(part.read_bytes())
    frames, source = frames_of(joined, "auto")
    assert len(frames) == 10
    assert source.notices == ["the picture changes from 64x64 to 96x64 on the way: scaled to the first size"]


def test_background_videos_are_deinterlaced(tmp_path: Path) -> None:
    background = open_background(interlaced_clip(tmp_path / "in.mp4"))
    frames, _ = frames_of(tmp_path / "in.mp4", "off")
    for frame in frames[2:6]:
        luma = background.planes(frame, torch.zeros(8, 8))[0]
        assert combing(luma) < 0.2 * combing(frame.planes[0])
    background.close()

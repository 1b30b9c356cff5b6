"""Chroma locations, as Debian's ffmpeg writes them and its ffprobe finds them."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_background import blank
from test_colour import ffmpeg, probed

from banet_stream import EncodeOptions, Matter, chroma, process
from banet_stream.codecs import CONTAINERS
from banet_stream.decode import Source
from banet_stream.fitting import Shape
from banet_stream.frame import PIXEL_FORMATS
from banet_stream.pipe import header, turn_upright
from banet_stream.relay_sink import add_video
from banet_stream.sinks import SinkOptions
from banet_stream.verify import CoreSamples, verify

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to check with")
LOCATIONS = ("left", "center", "topleft", "top")


@pytest.fixture(scope="module")
def matter() -> Matter:
    return Matter(device="cpu", size=64)


def make(path: Path, *words: str, pixel_format: str = "yuv420p") -> Path:
    picture = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-frames:v", "4", "-pix_fmt", pixel_format]
    ffmpeg(*picture, *words, path)
    return path


def located(path: Path, location: str) -> Path:
    return make(path, "-c:v", "ffv1", "-chroma_sample_location", location)


def told(path: Path) -> str:
    """By ffprobe."""
    return probed(path).get("chroma_location", "unspecified")


@pytest.mark.parametrize(
    ("name", "words", "pixel_format", "expected"),
    [
        ("h264.mp4", ["-c:v", "libx264"], "yuv420p", "left"),  # its default
        ("h264.mkv", ["-c:v", "libx264", "-x264-params", "chromaloc=1"], "yuv420p", "center"),
        ("h264.ts", ["-c:v", "libx264", "-x264-params", "chromaloc=2"], "yuv420p", "topleft"),
        ("h264.h264", ["-c:v", "libx264", "-x264-params", "chromaloc=3"], "yuv420p", "top"),
        ("hevc.mp4", ["-c:v", "libx265", "-x265-params", "log-level=none"], "yuv420p", "left"),
        (
            "h10.mp4",
            ["-c:v", "libx265", "-x265-params", "chromaloc=2:log-level=none"],
            "yuv420p10le",
            "topleft",
        ),
        ("mpeg1.mpg", ["-c:v", "mpeg1video"], "yuv420p", "center"),
        ("mpeg2.ts", ["-c:v", "mpeg2video"], "yuv420p", "left"),
        ("jpeg.avi", ["-c:v", "mjpeg"], "yuvj420p", "center"),
        ("jpeg.y4m", ["-chroma_sample_location", "center"], "yuv420p", "center"),
        ("paldv.y4m", ["-chroma_sample_location", "topleft"], "yuv420p", "topleft"),
        ("deep.y4m", ["-strict", "-1"], "yuv420p10le", "unspecified"),
        ("raw.avi", ["-c:v", "rawvideo"], "yuv420p", "unspecified"),
        ("vp9.webm", ["-c:v", "libvpx-vp9", "-chroma_sample_location", "topleft"], "yuv420p", "topleft"),
        ("none.mkv", ["-c:v", "ffv1"], "yuv420p", "unspecified"),
        ("other.wmv", ["-c:v", "wmv2"], "yuv420p", "unspecified"),  # Matroska can't hold it
        ("full.mp4", ["-c:v", "libx264"], "yuv444p", "unspecified"),
        ("rgb.mov", ["-c:v", "png"], "rgb24", "unspecified"),
    ],
)
def test_it_is_read(tmp_path: Path, name: str, words: list[str], pixel_format: str, expected: str) -> None:
    path = make(tmp_path / name, *words, pixel_format=pixel_format)
    with closing(Source(path)) as source:
        assert source.info.chroma_location == expected
    if chroma.is_420(pixel_format):  # of other layouts ffprobe says something too, which has no meaning
        assert told(path) == expected


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize(("suffix", "codec"), [(s, c) for s, held in CONTAINERS.items() for c in held])
def test_it_is_kept_or_its_loss_is_said(
    matter: Matter, tmp_path: Path, suffix: str, codec: str, location: str
) -> None:
    source, output = located(tmp_path / "in.mkv", location), tmp_path / f"out{suffix}"
    assert told(source) == location
    encoding = EncodeOptions(codec)
    summary = process(source, output, background="green", matter=matter, encoding=encoding, verify=True)
    findings = {f.name: f for f in summary.verification.findings}
    notices = [n for n in summary.notices if n.endswith(f"does not say where chroma lies ({location})")]
    if codec == "prores":  # 4:2:2
        assert not notices
        assert "chroma location" not in findings
        return
    kept = chroma.is_kept(location, codec, suffix)
    assert told(output) == (location if kept else "unspecified")
    assert len(notices) == (not kept)
    assert ("chroma location" in findings) == kept
    assert all(f.kept for f in findings.values())


@pytest.mark.parametrize("location", ["unspecified", "topleft"])
def test_a_resumed_run_keeps_it(matter: Matter, tmp_path: Path, location: str) -> None:
    source, output = located(tmp_path / "in.mkv", location), tmp_path / "out.webm"
    process(source, output, background="green", matter=matter, resume=True)
    assert told(output) == location


def test_another_location_is_found(tmp_path: Path) -> None:
    paths = {location: located(tmp_path / f"{location}.mkv", location) for location in LOCATIONS}
    for location, output in paths.items():
        with closing(Source(paths["topleft"])) as source:
            found = verify(source, output, CoreSamples(), usual_quality=True)
        assert [f.name for f in found.broken] == ([] if location == "topleft" else ["chroma location"])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("location", LOCATIONS)
def test_it_turns_with_the_picture(location: str, quarters: int) -> None:
    x, y = next(place for place, name in chroma.PLACES.items() if name == location)
    samples = np.zeros((3, 3))
    samples[y, x] = 1
    row, column = np.argwhere(np.rot90(samples, quarters))[0]
    assert chroma.turn(location, quarters) == chroma.PLACES.get((column, row), "unspecified")


@pytest.mark.parametrize(
    ("location", "rotation", "name"),
    [
        ("unspecified", 0, b"420mpeg2"),
        ("left", 0, b"420mpeg2"),
        ("center", 0, b"420jpeg"),
        ("center", 90, b"420jpeg"),
        ("topleft", 0, b"420paldv"),
        ("left", 90, b"420jpeg"),  # at the bottom then, half-way from the left
    ],
)
def test_the_names_in_pipes(location: str, rotation: int, name: bytes) -> None:
    frame = blank(8, 6, "yuv420p", rotation=rotation)
    frame = replace(frame, colour=replace(frame.colour, chroma_location=location))
    line = header(turn_upright(frame), Fraction(25))
    assert b" C" + name + b" XYSCSS=" + name.upper() + b" " in line


@pytest.mark.parametrize(("rotation", "expected"), [(0, "topleft"), (90, "bottomleft"), (180, "unspecified")])
def test_live_pictures_keep_it(tmp_path: Path, rotation: int, expected: str) -> None:
    located(tmp_path / "in.mkv", "topleft")
    turned, output = tmp_path / "turned.mp4", tmp_path / "out.mp4"
    with av.open(str(tmp_path / "in.mkv")) as old, av.open(str(turned), "w") as new:
        options = {"chroma_sample_location": "topleft"}
        stream = new.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in old.decode(video=0):
            new.mux(stream.encode(picture))
        new.mux(stream.encode(None))
    with av.open(str(turned)) as container:
        shape = Shape.of(next(container.decode(video=0)), container.streams.video[0])
    assert shape.colour.chroma_location == expected
    first = replace(blank(64, 48, "yuv420p"), colour=shape.colour, time_base=Fraction(1, 25))
    with av.open(str(output), "w") as container:
        stream = add_video(container, first, SinkOptions(), Fraction(25))
        picture = av.VideoFrame(64, 48, PIXEL_FORMATS["yuv420p"].name)
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert told(output) == ("left" if expected == "unspecified" else expected)

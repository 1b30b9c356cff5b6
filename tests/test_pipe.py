"""``-``: in a shell pipe between two of Debian's ffmpeg."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read
from test_background import blank

from banet_stream.pipe import header, turn_upright

Clip = Callable[..., Path]
pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to pipe from and to")
BANET = [sys.executable, "-m", "banet_stream"]
FAST = ["--device", "cpu", "--size", "64"]
FFMPEG = ["ffmpeg", "-v", "error", "-nostdin"]


def pipe(*commands: list[object]) -> list[subprocess.CompletedProcess[str]]:
    """Runs commands joined by pipes: exit codes and standard errors."""
    running: list[subprocess.Popen[bytes]] = []
    for command in commands:
        last = running[-1].stdout if running else subprocess.DEVNULL
        running.append(
            subprocess.Popen(
                [str(w) for w in command], stdin=last, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
        if running[:-1]:
            running[-2].stdout.close()  # so that a reader's end is noticed
    _, last_words = running[-1].communicate(timeout=120)
    done = []
    for process in running:
        process.wait(60)
        err = last_words if process is running[-1] else process.stderr.read()
        process.stderr.close()
        done.append(subprocess.CompletedProcess(process.args, process.returncode, "", err.decode()))
    return done


@pytest.mark.parametrize(
    ("pixel_format", "range_name"),
    [("yuv420p", "tv"), ("yuv444p", "pc"), ("yuv422p10le", "tv")],
)
def test_between_two_ffmpegs(clip: Clip, tmp_path: Path, pixel_format: str, range_name: str) -> None:
    source, output = clip(rate=Fraction(24000, 1001)), tmp_path / "out.mkv"
    convert = f"scale=out_range={range_name},format={pixel_format}"
    done = pipe(
        [*FFMPEG, "-i", source, "-vf", convert, "-strict", "-1", "-f", "yuv4mpegpipe", "-"],
        [*BANET, "-", "-o", "-", "--bg", "#00b140", *FAST],
        [*FFMPEG, "-i", "-", "-c:v", "ffv1", output],
    )
    assert [d.returncode for d in done] == [0, 0, 0], done
    before, after = read(source), read(output)
    assert len(after.frames) == 12
    assert {f.format.name for f in after.frames} == {pixel_format}
    assert after.pts_seconds == pytest.approx(before.pts_seconds, abs=1.1e-3)
    picture = after.frames[4].reformat(
        format="rgb24", src_colorspace=5, src_color_range=1 if range_name == "tv" else 2
    )
    corner = picture.to_ndarray()[:4, :4].reshape(-1, 3).mean(0)
    assert np.abs(corner - [0x00, 0xB1, 0x40]).max() <= 3
    assert int(after.frames[0].color_range) == (1 if range_name == "tv" else 2)


def test_other_containers_come_through_standard_input_too(clip: Clip, tmp_path: Path) -> None:
    source, output = clip(audio="aac", suffix=".mkv"), tmp_path / "out.mkv"
    done = pipe(
        [*FFMPEG, "-i", source, "-c", "copy", "-f", "matroska", "-"],
        [*BANET, "-", "-o", output, *FAST],
    )
    assert [d.returncode for d in done] == [0, 0], done
    before, after = read(source), read(output)
    assert len(after.frames) == 12
    assert after.audio_packets == before.audio_packets


def test_a_part_of_a_pipe(clip: Clip, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    done = pipe(
        [*FFMPEG, "-i", clip(frames=50), "-f", "yuv4mpegpipe", "-"],
        [*BANET, "-", "-o", output, "--start", "0.8", "--duration", "0.4", *FAST],
    )
    assert done[1].returncode == 0, done
    assert read(output).pts_seconds == pytest.approx([i / 25 for i in range(10)], abs=1e-6)


def test_a_reader_that_goes_away(clip: Clip) -> None:
    done = pipe(
        [*BANET, clip(frames=200, audio="aac"), "-o", "-", *FAST],
        ["head", "-c", "20000"],
    )
    assert done[0].returncode == 5, done
    assert "standard output: closed by its reader after" in done[0].stderr
    assert "Traceback" not in done[0].stderr
    assert "Exception ignored" not in done[0].stderr


def test_a_writer_that_breaks_off(clip: Clip, tmp_path: Path) -> None:
    """The stream ends in the middle of a frame."""
    output = tmp_path / "out.mp4"
    done = pipe(
        [*FFMPEG, "-i", clip(), "-f", "yuv4mpegpipe", "-"],
        ["head", "-c", str(96 * 128 * 3 // 2 * 5 + 300)],
        [*BANET, "-", "-o", output, *FAST],
    )
    assert done[2].returncode in (0, 9), done
    assert "Traceback" not in done[2].stderr
    assert 4 <= len(read(output).frames) <= 5


def test_nothing_comes(tmp_path: Path) -> None:
    done = pipe(["true"], [*BANET, "-", "-o", tmp_path / "out.mp4", *FAST])
    assert done[1].returncode == 3
    assert len(done[1].stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--bg", "transparent"], 5, "y4m can't hold transparency"),
        (["--crf", "9"], 5, "this has one quality"),
    ],
)
def test_what_a_pipe_can_not_hold(clip: Clip, words: list[str], code: int, message: str) -> None:
    done = pipe([*BANET, clip(), "-o", "-", *words, *FAST])
    assert done[0].returncode == code
    assert message in done[0].stderr


def test_no_frames_on_a_terminal(clip: Clip) -> None:
    import os
    import pty

    parent, child = pty.openpty()
    for words in ([str(clip()), "-o", "-"], ["-", "-o", "out.mp4"]):
        done = subprocess.run(
            [*BANET, *words, *FAST], stdin=child, stdout=child, stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode in (3, 5)
        assert "is a terminal" in done.stderr
    os.close(parent)
    os.close(child)


@pytest.mark.parametrize(
    ("output", "streams", "code"),
    [
        ("o.mp4", "2>&-", 0),
        ("o.mp4", ">&-", 0),
        ("o.mp4", ">/dev/full", 0),
        ("o.mp4", "--json | true; exit ${PIPESTATUS[0]}", 0),
        ("-", ">&-", 5),
    ],
)
def test_closed_and_full_standard_streams(
    clip: Clip, tmp_path: Path, output: str, streams: str, code: int
) -> None:
    """Who started us may not listen: the work is done all the same, without a traceback."""
    command = shlex.join([*BANET, str(clip(frames=2)), "-o", output, *FAST])
    done = subprocess.run(
        ["bash", "-c", f"{command} {streams}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "o.mp4").exists() == (code == 0)


def test_verify_needs_a_file(clip: Clip, tmp_path: Path) -> None:
    done = pipe(["cat", clip()], [*BANET, "-", "-o", tmp_path / "o.mp4", "--verify", *FAST])[-1]
    assert (done.returncode, list(tmp_path.iterdir())) == (3, [])
    assert "-: --verify needs a file, which it can read again" in done.stderr


def test_uneven_time_and_lost_sound_are_said(clip: Clip) -> None:
    pts = (0, 40, 80, 200, 240, 280, 320, 360, 400, 440, 480, 520)
    done = pipe([*BANET, clip(pts=pts, audio="aac"), "-o", "-", *FAST], ["cat"])
    assert done[0].returncode == 0
    assert "not evenly spaced" in done[0].stderr
    assert "no sound" in done[0].stderr
    assert "12 frames" in done[0].stderr


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p10le"])
def test_turned_frames_leave_upright(rotation: int, name: str) -> None:
    frame = blank(8, 6, name, rotation=rotation, aspect=Fraction(4, 3))
    frame.planes[0][:3, :4] = 77
    frame.planes[1][: frame.planes[1].shape[0] // 2, : frame.planes[1].shape[1] // 2] = 33
    turned = turn_upright(frame)
    assert turned.rotation == 0
    assert turned.sample_aspect_ratio == (Fraction(3, 4) if rotation != 180 else Fraction(4, 3))
    assert torch.equal(turned.planes[0], torch.rot90(frame.planes[0], rotation // 90))
    place = {90: (-1, 0), 180: (-1, -1), 270: (0, -1)}[rotation]
    assert turned.planes[0][place] == 77
    assert turned.planes[1][place] == 33


def test_the_header() -> None:
    frame = replace(blank(6, 4, "yuv420p10le"), sample_aspect_ratio=Fraction(4, 3))
    assert header(frame, Fraction(30000, 1001)) == (
        b"YUV4MPEG2 W6 H4 F30000:1001 Ip A4:3 C420p10 XYSCSS=420P10 XCOLORRANGE=LIMITED\n"
    )

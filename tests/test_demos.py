"""The scripts that the README and the Makefile run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

DEMOS = Path(__file__).parent.parent / "demos"


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(DEMOS / script), *map(str, arguments)], check=True)


def test_sample_clip_moves_and_sounds(tmp_path: Path) -> None:
    path = tmp_path / "sample.mp4"
    run("sample_clip.py", path)
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="gray").astype(int) for f in container.decode(video=0)]
    assert len(frames) == 120
    change = abs(frames[0] - frames[30])
    assert change[:, 200:360].mean() > 3  # she sways
    assert change[:, -40:].mean() < 1  # the room rests
    with av.open(str(path)) as container:
        seconds = sum(f.samples for f in container.decode(audio=0)) / 48000
    assert seconds == pytest.approx(4, abs=0.05)


def test_room(tmp_path: Path) -> None:
    run("room.py", tmp_path / "room.png")
    with Image.open(tmp_path / "room.png") as room:
        assert room.size == (1920, 1080)


def test_gradio_app_is_the_command() -> None:
    words = [sys.executable, str(DEMOS / "gradio_app.py"), "--help"]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "banet-stream demo" in told
    assert "--max-seconds" in told

"""Recordings played live: once, at their own pace, with all of their sound."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import read
from live_runs import OPTIONS, run

from banet_stream import Matter
from banet_stream.contract import LAST, SLATE
from banet_stream.live_source import CaptureOptions

RATE = 48_000


def write(path: Path, times: list[float], *, sound_seconds: float = 0.0, codec: str = "aac") -> Path:
    """Pictures at these times, and a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=RATE, layout="stereo") if sound_seconds else None
        for number, seconds in enumerate(times):
            picture = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 40 + number % 200, np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        for start in range(0, round(sound_seconds * RATE), 1024) if sound else ():
            wave = np.sin(np.arange(start, start + 1024) / 10)[None].repeat(2, 0).astype(np.float32)
            if codec == "pcm_s16le":
                wave = np.ascontiguousarray((wave * 9000).astype(np.int16).T.reshape(1, -1))
            form = "s16" if codec == "pcm_s16le" else "fltp"
            heard = av.AudioFrame.from_ndarray(wave, format=form, layout="stereo")
            heard.pts, heard.sample_rate, heard.time_base = start, RATE, Fraction(1, RATE)
            container.mux(sound.encode(heard))
        if sound:
            container.mux(sound.encode())
    return path


class Pipe:
    """Written to and never gone back in, so that what is written can't declare its length."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


@pytest.mark.parametrize("format", ["h264", "matroska"])
def test_a_file_that_declares_no_duration_plays_once(
    stub: Callable[..., Matter], tmp_path: Path, format: str
) -> None:
    pipe, source = Pipe(), tmp_path / "in"
    whole = write(tmp_path / "whole.mp4", [n / 25 for n in range(30)])
    with av.open(str(whole)) as before, av.open(pipe, "w", format=format) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(before.streams.video[0]):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    source.write_bytes(pipe.data)
    began = time.monotonic()
    summary = run(str(source), tmp_path / "o.mkv", stub(), realtime=True, duration_seconds=60)
    assert time.monotonic() - began > 1.1
    assert summary.contract.whole.captured == 30
    assert not summary.contract.whole.reconnects


def test_a_picture_stands_as_long_as_it_stands(stub: Callable[..., Matter], tmp_path: Path) -> None:
    """Longer than the time after which a silent source is given up, and than a gap."""
    source = write(tmp_path / "slides.mp4", [0.0, 4.0, 8.0])
    options = {
        "capture": CaptureOptions(0.5, OPTIONS.capture.retry),
        "publish": replace(OPTIONS.publish, gap_seconds=0.5),
    }
    summary = run(
        str(source), tmp_path / "o.mkv", stub(), realtime=True, duration_seconds=60, slate="red", **options
    )
    whole = summary.contract.whole
    assert whole.captured == 3
    assert not whole.reconnects
    assert whole.fillers[LAST] > 10
    assert not whole.fillers[SLATE]


def test_sound_that_comes_in_a_burst_is_all_heard(stub: Callable[..., Matter], tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", [n / 10 for n in range(10)], sound_seconds=7)
    output = tmp_path / "o.mp4"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    before, after = read(source).audio_packets, read(output).audio_packets
    assert len(before) > 320  # more than waits anywhere
    assert after == before[len(before) - len(after) :]
    assert len(after) > len(before) - 10  # before the first picture


def test_sound_without_a_layout_gets_the_usual_one(stub: Callable[..., Matter], tmp_path: Path) -> None:
    """Matroska tells the number of PCM's channels alone."""
    source = write(tmp_path / "in.mkv", [n / 10 for n in range(20)], sound_seconds=2, codec="pcm_s16le")
    with av.open(str(source)) as container:
        assert container.streams.audio[0].layout.name == "2 channels"
    output = tmp_path / "o.mp4"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    with av.open(str(output)) as container:
        assert container.streams.audio[0].layout.name == "stereo"
        assert sum(f.samples for f in container.decode(audio=0)) > 0.9 * 2 * RATE


def test_a_recording_that_is_cut_off_is_said_to_be(
    stub: Callable[..., Matter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write(tmp_path / "whole.mkv", [i / 10 for i in range(60)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    for path, told in ((whole, False), (cut, True)):
        caplog.clear()
        run(str(path), tmp_path / f"{path.stem}-out.mkv", stub(), realtime=True, duration_seconds=20)
        assert ("s are missing: cut off or damaged" in caplog.text) == told

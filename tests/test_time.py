"""Sound and picture stay together: a flash and a beep, whose distance is measured before and after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from banet_stream import Matter, process

pytestmark = pytest.mark.usefixtures("left_half")

RATE = 48000
FLASH, FRAMES = 20, 50  # the number of the white frame
SYNC_SECONDS = 1e-3


@dataclass(frozen=True)
class Shape:
    """How a clip's time runs."""

    suffix: str = ".mp4"
    start: float = 0.0  # seconds, of the first frame
    sound_start: float = 0.0
    gap_frames: int = 0  # missing before frame 10
    audio: str = "aac"
    rate: Fraction = Fraction(25)
    beep: float = 0.0  # seconds after the flash
    tracks: int = 1


def write(path: Path, shape: Shape) -> None:
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream("libx264", rate=shape.rate, options={"bf": "3", "crf": "10"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        video.codec_context.time_base = Fraction(1, 90000)
        sounds = [container.add_stream(shape.audio, rate=RATE, layout="mono") for _ in range(shape.tracks)]
        for index in range(FRAMES):
            level = 235 if index == FLASH else 16
            frame = av.VideoFrame.from_ndarray(
                np.concatenate([np.full((64, 64), level), np.full((32, 64), 128)]).astype(np.uint8),
                format="yuv420p",
            )
            place = index + (shape.gap_frames if index >= 10 else 0)
            frame.pts, frame.time_base = round((shape.start + place / shape.rate) * 90000), Fraction(1, 90000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        flash = shape.start + float((FLASH + shape.gap_frames) / shape.rate)
        seconds = flash + 1.0 - shape.sound_start
        times = shape.sound_start + np.arange(int(seconds * RATE)) / RATE
        wave = np.where(times >= flash + shape.beep, np.sin(2 * np.pi * 1000 * (times - flash)), 0) * 0.5
        for sound in sounds:
            for begin in range(0, len(wave) - 1023, 1024):
                piece = av.AudioFrame.from_ndarray(
                    wave[None, begin : begin + 1024].astype(np.float32), format="fltp", layout="mono"
                )
                piece.sample_rate, piece.time_base = RATE, Fraction(1, RATE)
                piece.pts = round(shape.sound_start * RATE) + begin
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))


def measure(path: Path) -> list[float]:
    """Seconds from the flash to the beep, for every track of sound."""
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="gray")[:, :24].mean()) for f in container.decode(video=0)]
    flash = next(time for time, level in frames if level > 128)
    with av.open(str(path)) as container:
        tracks = len(container.streams.audio)
    return [beep(path, track) - flash for track in range(tracks)]


def beep(path: Path, track: int) -> float:
    """When a track first gets loud: where its energy, over a millisecond, passes a third of the tone's."""
    with av.open(str(path)) as container:
        pieces = [(f.time, f.to_ndarray()[0], f.sample_rate) for f in container.decode(audio=track)]
    start, rate = pieces[0][0], pieces[0][2]
    wave = np.zeros(round((pieces[-1][0] - start) * rate) + len(pieces[-1][1]))
    for time, samples, _ in pieces:
        place = round((time - start) * rate)
        wave[place : place + len(samples)] = samples
    energy = np.convolve(wave**2, np.ones(rate // 1000) / (rate // 1000), "same")
    return start + int((energy > 0.3 * np.percentile(energy, 95)).argmax()) / rate


@pytest.fixture(scope="module")
def small_matter() -> Matter:
    return Matter(device="cpu", precision="float32", size=64)


@pytest.mark.parametrize(
    ("shape", "suffix"),
    [
        (Shape(), ".mp4"),
        (Shape(beep=0.1), ".mkv"),
        (Shape(), ".webm"),  # sound re-encoded
        (Shape(suffix=".mkv", start=0.5, sound_start=0.3), ".mp4"),
        (Shape(suffix=".mkv", start=0.5, sound_start=0.0, audio="libopus"), ".webm"),
        (Shape(suffix=".ts", start=1.4, sound_start=1.2), ".mp4"),
        (Shape(suffix=".mov", start=-0.2, sound_start=-0.1), ".mp4"),
        (Shape(suffix=".mp4", start=-0.2, sound_start=-0.3), ".mkv"),
        (Shape(suffix=".mov", sound_start=0.4, rate=Fraction(24000, 1001)), ".mov"),
        (Shape(suffix=".mkv", gap_frames=30, rate=Fraction(60000, 1001)), ".mp4"),
        (Shape(suffix=".mkv", gap_frames=7, tracks=3), ".mkv"),
        (Shape(tracks=2), ".mov"),
    ],
)
def test_flash_and_beep(small_matter: Matter, tmp_path: Path, shape: Shape, suffix: str) -> None:
    source, output = tmp_path / f"in{shape.suffix}", tmp_path / f"out{suffix}"
    write(source, shape)
    before = measure(source)
    assert before == pytest.approx([shape.beep] * shape.tracks, abs=2e-3)  # the clip is what it should be
    summary = process(source, output, background="black", matter=small_matter, verify=True)
    assert not summary.verification.broken
    # An edit list hides what is before zero, here five frames.
    assert summary.frames == FRAMES - (5 if shape.start < 0 else 0)
    assert measure(output) == pytest.approx(before, abs=SYNC_SECONDS)
    durations = []
    for path in (source, output):
        with av.open(str(path)) as container:
            times = [f.time for f in container.decode(video=0)]
            durations.append(times[-1] - times[0])
    assert durations[0] == pytest.approx(durations[1], abs=1.1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_stays_together(small_matter: Matter, tmp_path: Path, suffix: str) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    write(source, Shape(beep=0.05))
    process(source, output, background="black", matter=small_matter, start_seconds=0.32, duration_seconds=1.2)
    assert measure(output) == pytest.approx(measure(source), abs=SYNC_SECONDS)


def test_subtitles_are_kept_with_their_time_and_language(small_matter: Matter, tmp_path: Path) -> None:
    text, source = tmp_path / "in.srt", tmp_path / "in.mkv"
    text.write_text("1\n00:00:00,400 --> 00:00:00,900\nHello\n\n2\n00:00:01,000 --> 00:00:01,500\nthere\n")
    write(tmp_path / "picture.mp4", Shape())
    with (
        av.open(str(tmp_path / "picture.mp4")) as old,
        av.open(str(text)) as words,
        av.open(str(source), "w") as new,
    ):
        picture, subtitle = (
            new.add_stream_from_template(s) for s in (old.streams.video[0], words.streams.subtitles[0])
        )
        subtitle.metadata["language"] = "deu"
        for container, stream in ((words, subtitle), (old, picture)):
            for packet in container.demux(container.streams[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)

    def subtitles(path: Path) -> list[tuple[float, bytes]]:
        with av.open(str(path)) as container:
            stream = container.streams.subtitles[0]
            assert stream.metadata["language"] == "deu"
            return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]

    process(source, tmp_path / "out.mkv", background="black", matter=small_matter)
    assert subtitles(tmp_path / "out.mkv") == subtitles(source)
    assert [content for _, content in subtitles(source)] == [b"Hello", b"there"]
    summary = process(source, tmp_path / "out.mp4", background="black", matter=small_matter)
    assert any(re.search(r"can't hold subtitle .* re-encoded as mov_text", n) for n in summary.notices)
    told = [(at, content) for at, content in subtitles(tmp_path / "out.mp4") if len(content) > 2]  # not gaps
    assert [at for at, _ in told] == pytest.approx([0.4, 1.0], abs=0.001)
    assert [content[2:] for _, content in told] == [b"Hello", b"there"]
    process(
        tmp_path / "out.mp4",
        tmp_path / "part.webm",
        background="black",
        matter=small_matter,
        start_seconds=0.8,
    )
    assert subtitles(tmp_path / "part.webm") == [(pytest.approx(0.2, abs=0.001), b"there")]

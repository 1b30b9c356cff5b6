"""Clocks that jump, begin late, or begin before zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from conftest import read
from live_runs import run

from banet_stream import Interrupted, Matter, Progress, iter_mattes, process
from banet_stream.seams import Seams

Clip = Callable[..., Path]
WRAP_SECONDS = 2**33 / 90_000  # MPEG's clock has 33 bits
FPS, FRAMES = 25, 50


def at(clip: Path, output: Path, *begins: float) -> Path:
    """The clip, in one file after the other, each by a clock of its own."""
    joined = b""
    for number, begin in enumerate(begins):
        part = output.with_name(f"{number}-{output.name}")
        with av.open(str(clip)) as source, av.open(str(part), "w") as target:
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    moved = round(begin / packet.time_base)
                    packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
        joined += part.read_bytes()
        part.unlink()
    output.write_bytes(joined)
    return output


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "begins",
    [(2, 2, 2), (2, 4000), (3, 2.5), (4000, 2), (WRAP_SECONDS - 1, 50)],
    ids=["joined", "later", "a little before", "earlier", "wrapped"],
)
def test_parts_follow_each_other(
    begins: tuple[float, ...], suffix: str, clip: Clip, matter: Matter, tmp_path: Path
) -> None:
    source = at(clip(frames=FRAMES, audio="aac"), tmp_path / "in.ts", *begins)
    sound = read(source).audio_packets
    output = tmp_path / f"out{suffix}"
    summary = process(source, output, background="green", matter=matter, verify=True)
    assert summary.verification is not None
    assert all(finding.kept for finding in summary.verification.findings)
    assert "its clock jumps on the way: what follows is put right behind" in summary.notices
    made = read(output)
    assert len(made.frames) == FRAMES * len(begins)
    steps = np.diff(made.pts_seconds)
    assert np.delete(steps, [FRAMES * n - 1 for n in range(1, len(begins))]) == pytest.approx(
        1 / FPS, abs=0.002
    )
    assert all(0 < step < 0.15 for step in steps)  # sound of a part may end a little after its pictures
    heard = np.diff(made.audio_seconds)
    assert all(0 < step < 0.15 for step in heard)
    assert len(made.audio_packets) >= len(sound) - 2 * (len(begins) - 1)  # at a seam one or two too many
    # The last part's sound is as far from its pictures as it was.
    alone = read(clip(frames=FRAMES, audio="aac"))
    was, now = (s.audio_seconds[-1] - s.pts_seconds[-1] for s in (alone, made))
    assert now == pytest.approx(was, abs=0.003)


@pytest.mark.parametrize(("suffix", "begin"), [(".ts", 90_000), (".mov", 90_000), (".ts", WRAP_SECONDS - 1)])
@pytest.mark.parametrize("output", ["out.mp4", "out.mkv"])
def test_odd_clocks_begin_at_zero(
    suffix: str, begin: float, output: str, clip: Clip, matter: Matter, tmp_path: Path
) -> None:
    source = at(clip(frames=FRAMES, audio="aac"), tmp_path / f"in{suffix}", begin)
    made = tmp_path / output
    summary = process(source, made, background="green", matter=matter, verify=True)
    assert summary.verification is not None
    assert all(finding.kept for finding in summary.verification.findings)
    assert any(n.startswith("its clock begins at ") for n in summary.notices)
    assert len(read(made).frames) == FRAMES
    assert read(made).pts_seconds[0] < 0.1
    assert next(iter_mattes(source, matter=matter)).pts_seconds < 0.1


def test_a_usual_clock_is_kept(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    source = at(clip(frames=FRAMES, audio="aac"), tmp_path / "in.ts", 1.4)
    summary = process(source, tmp_path / "out.mp4", background="green", matter=matter)
    assert summary.notices == []
    assert read(tmp_path / "out.mp4").pts_seconds == pytest.approx(read(source).pts_seconds, abs=1e-3)


def test_a_recording_played_live_does_not_wait_for_its_clock(
    stub: Callable[..., Matter], clip: Clip, tmp_path: Path
) -> None:
    source = at(clip(frames=FRAMES, audio="aac"), tmp_path / "in.ts", 2, 4000, 2)
    output = tmp_path / "out.mkv"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    made = read(output)
    assert made.pts_seconds[-1] - made.pts_seconds[0] == pytest.approx(3 * FRAMES / FPS, abs=0.5)
    assert made.audio_seconds[-1] - made.audio_seconds[0] == pytest.approx(3 * FRAMES / FPS, abs=0.5)


def test_interrupted_and_resumed_is_as_never_interrupted(
    clip: Clip, matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banet_stream.resume.SEGMENT_FRAMES", 10)
    source = at(clip(frames=FRAMES, audio="aac"), tmp_path / "in.ts", 2, 4000, 2)

    def watch(now: Progress) -> None:
        if now.frames >= 70:
            raise KeyboardInterrupt

    small = matter.at_size(64)
    process(source, tmp_path / "whole.mp4", background="green", matter=small)
    with pytest.raises(Interrupted):
        process(source, tmp_path / "o.mp4", background="green", matter=small, resume=True, progress=watch)
    summary = process(source, tmp_path / "o.mp4", background="green", matter=small, resume=True)
    assert summary.resumed_frames >= 60
    whole, resumed = read(tmp_path / "whole.mp4"), read(tmp_path / "o.mp4")
    assert resumed.pts_seconds == whole.pts_seconds
    assert resumed.audio_packets == whole.audio_packets
    assert resumed.audio_seconds == whole.audio_seconds


@dataclass
class Packet:
    """What ``Seams`` sees of one, in a clock of milliseconds."""

    stream: SimpleNamespace
    dts: int | None
    pts: int | None = None
    duration: int | None = 40
    time_base: Fraction = Fraction(1, 1000)


VIDEO, AUDIO, SUBTITLE = (
    SimpleNamespace(index=index, type=kind) for index, kind in enumerate(("video", "audio", "subtitle"))
)


def placed(*packets: tuple[SimpleNamespace, int]) -> tuple[list[int | None], Seams]:
    """Where packets come to lie; None: nowhere."""
    seams = Seams()
    made = [Packet(stream, dts, dts) for stream, dts in packets]
    return [packet.dts if seams.place(packet) else None for packet in made], seams


def in_turn(begin: int, count: int) -> list[tuple[SimpleNamespace, int]]:
    return [(stream, begin + 40 * n) for n in range(count) for stream in (VIDEO, AUDIO)]


def test_a_clock_that_goes_on_is_left_alone() -> None:
    packets = [*in_turn(1000, 20), *in_turn(1800 + 9000, 20)]  # and so is a gap
    times, seams = placed(*packets)
    assert times == [dts for _, dts in packets]
    assert seams.found == 0


def test_packets_of_two_parts_mixed() -> None:
    mixed = [
        (VIDEO, 500_000),
        (AUDIO, 1800),
        (VIDEO, 500_040),
        (AUDIO, 1840),
        (AUDIO, 500_080),
        (VIDEO, 500_080),
    ]
    times, seams = placed(*in_turn(1000, 20), *mixed)
    assert times[40:] == [1800, 1800, 1840, 1840, 1880, 1880]
    assert seams.found == 1


@pytest.mark.parametrize("strange", [900_000, -900_000])
def test_one_strange_time(strange: int) -> None:
    times, _ = placed(*in_turn(1000, 20), (VIDEO, strange), (AUDIO, 1800), *in_turn(1840, 20))
    assert times[40] == 1800
    assert times[41:] == [1800, *(dts for _, dts in in_turn(1840, 20))]


def test_a_time_a_little_too_late_leaves_pictures_and_sound_in_step() -> None:
    packets = [*in_turn(1000, 20), (VIDEO, 9800), (AUDIO, 1800), *in_turn(1840, 1000)]
    times, _ = placed(*packets)
    video, audio = (
        [t - dts for t, (s, dts) in zip(times, packets, strict=True) if s is stream]
        for stream in (VIDEO, AUDIO)
    )
    assert video[-1] == audio[-1]


def test_sound_that_would_overlap_is_left_out() -> None:
    # The part begins, at 1800, with the picture of 902,000.
    times, _ = placed(
        *in_turn(1000, 20), (VIDEO, 902_000), (AUDIO, 901_700), (AUDIO, 901_960), (AUDIO, 902_000)
    )
    assert times[40:] == [1800, None, None, 1800]


def test_subtitles_and_packets_without_times() -> None:
    times, _ = placed(*in_turn(1000, 20), *in_turn(500_000, 2), (SUBTITLE, 500_040))
    assert times[-1] == 1840
    seams = Seams()
    untimed = Packet(VIDEO, None, None)
    assert seams.place(untimed)
    assert untimed.dts is None

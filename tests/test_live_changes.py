"""A source that becomes another one in mid-stream or over a loss: size, rate, codec, sound; MPEG-TS over TCP.

Its picture and sound mark the same moments, so that what is recorded shows whether they are still in step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import pytest
import torch
from conftest import read
from live_runs import Running, colours

from banet_stream import Matter
from banet_stream.backoff import Retry
from banet_stream.contract import DAMAGED, SLATE, Contract
from banet_stream.frame import PIXEL_FORMATS, Colour
from banet_stream.kinds import Kind, Place
from banet_stream.live import LiveOptions
from banet_stream.live_source import CaptureOptions, LiveFrame
from banet_stream.publish import PublishOptions
from banet_stream.relay_sink import RelaySink
from banet_stream.sinks import SinkOptions, Start
from banet_stream.sound import Sound, Track
from benchmarks.marks import Camera, MarkServer, marks, steps

RETRY = Retry(0.2, 0.5)
OPTIONS = LiveOptions(
    capture=CaptureOptions(3.0, RETRY),
    publish=PublishOptions(SinkOptions(), RETRY, deadline_seconds=20, gap_seconds=0.5),
    slate="red",
)
FIRST = Camera()
OTHER = Camera(codec="libx265", width=96, height=64, rate=15)
# A frame of the slower camera, and one that was dropped before it.
IN_STEP_SECONDS = 0.14
AT_LEAST = 2  # marks on either side of a loss


@pytest.fixture
def served() -> Iterator[Callable[[Camera], MarkServer]]:
    """``served(camera)``: a server that ends with the test."""
    started: list[MarkServer] = []

    def start(camera: Camera) -> MarkServer:
        started.append(MarkServer(camera))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def everyone(stub: Callable[..., Matter]) -> Matter:
    """Everything is person: the marks stay as they come."""
    return stub(lambda _: 1.0)


def sides(path: Path, gap: tuple[float, float]) -> tuple[list[float], list[float]]:
    """By how much the sound is behind the picture, at every mark before and after a loss."""
    found = steps(path)
    return [s for t, s in found if t < gap[0]], [s for t, s in found if t > gap[1]]


def slate_of(path: Path) -> tuple[float, float]:
    """From when to when the slate was seen; the longest time, as a busy machine may show it by itself."""
    after = read(path)
    stretches: list[tuple[float, float]] = []
    was = ""
    for seconds, colour in zip(after.pts_seconds, colours(after.frames), strict=True):
        if colour == "red":
            began = stretches.pop()[0] if was == "red" else seconds
            stretches.append((began, seconds))
        was = colour
    return max(stretches, key=lambda s: s[1] - s[0])


def assert_in_step(path: Path) -> None:
    for side in sides(path, slate_of(path)):
        assert len(side) >= AT_LEAST
        assert abs(median(side)) < IN_STEP_SECONDS


# --- over a loss -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "following"),
    [
        (FIRST, OTHER),
        (FIRST, replace(OTHER, sound=None)),
        (replace(FIRST, sound=None), replace(OTHER, sound=None)),
        (OTHER, FIRST),
    ],
    ids=["with sound", "sound goes", "without sound", "larger and faster"],
)
def test_it_comes_back_as_another(
    served: Callable[..., MarkServer],
    running: Callable[..., Running],
    everyone: Matter,
    tmp_path: Path,
    first: Camera,
    following: Camera,
) -> None:
    server, output = served(first), tmp_path / "o.mkv"
    run = running(server.url, output, matter=everyone)
    run.more_frames(4 * first.rate)
    server.hang_up(following)
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(4 * following.rate)
    summary = run.end()
    assert summary.contract.whole.reconnects == {"source": 1}
    after = read(output)
    assert {(f.width, f.height) for f in after.frames} == {(first.width, first.height)}
    assert all(b > a for a, b in zip(after.pts_seconds, after.pts_seconds[1:], strict=False))
    flashes, _ = marks(output)
    assert [t for t in flashes if t > slate_of(output)[1]]
    if first.sound and following.sound:
        assert_in_step(output)


def test_the_network_is_cut_and_mended(
    served: Callable[..., MarkServer], running: Callable[..., Running], everyone: Matter, tmp_path: Path
) -> None:
    """For longer than --timeout: nothing comes, and nobody answers. benchmarks/bench_live.py has a minute."""
    server, output = served(FIRST), tmp_path / "o.mkv"
    run = running(server.url, output, matter=everyone)
    run.more_frames(100)
    server.cut()
    before = run.contract.whole.fillers[SLATE]  # a busy machine may have shown it by itself
    run.wait(lambda c: c.whole.fillers[SLATE] >= before + 35, "the slate")  # five a second
    server.mend()
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(100)
    run.end()
    assert_in_step(output)
    began, ended = slate_of(output)
    assert ended - began > 4  # the gap lasts as it did: 7 s, less what a busy machine is late by


def test_sound_that_is_encoded_goes_on_from_another_kind(
    served: Callable[..., MarkServer], running: Callable[..., Running], everyone: Matter, tmp_path: Path
) -> None:
    following = Camera(sound="aac", sample_rate=24_000)
    server, output = served(Camera(sound="libopus")), tmp_path / "o.ts"
    run = running(server.url, output, matter=everyone)
    run.more_frames(100)
    server.hang_up(following)
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(100)
    run.end()
    assert_in_step(output)


def test_a_server_gets_the_new_sound(
    served: Callable[..., MarkServer], running: Callable[..., Running], tmp_path: Path
) -> None:
    """What is copied can't change within a connection, so the sink is begun anew."""
    following = Camera(sound="libopus")
    server = served(FIRST)
    run = running(server.url, tmp_path / "live.m3u8")
    run.more_frames(40)
    server.hang_up(following)
    run.wait(lambda c: c.whole.reconnects["sink"] == 1, "the sink with the new sound")
    run.more_frames(100)
    summary = run.end()
    assert summary.contract.whole.reconnects == {"source": 1, "sink": 1}
    newest = sorted(tmp_path.glob("live-*.ts"))[-2:]
    assert any(marks(segment)[1] for segment in newest)


@pytest.mark.parametrize(
    ("first", "following", "words"),
    [
        (FIRST, Camera(sound="libopus"), "(opus) is left out: the file began with aac"),
        (replace(FIRST, sound=None), FIRST, "(aac) is left out: the file began without"),
    ],
    ids=["another", "none"],
)
def test_a_file_says_what_sound_it_can_not_take(
    served: Callable[..., MarkServer],
    running: Callable[..., Running],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: Camera,
    following: Camera,
    words: str,
) -> None:
    server, output = served(first), tmp_path / "o.mkv"
    run = running(server.url, output)
    run.more_frames(20)
    server.hang_up(following)
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(40)
    summary = run.end()
    assert caplog.text.count(words) == 1
    assert summary.contract.whole.reconnects == {"source": 1}
    assert set(colours(read(output).frames)) <= {"green", "red"}


# --- within a connection -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "following",
    [Camera(width=96, height=64, rate=15), replace(FIRST, first_pid=300)],
    ids=["size and rate", "numbers of the streams"],
)
def test_it_changes_and_nothing_is_lost(
    served: Callable[..., MarkServer],
    running: Callable[..., Running],
    everyone: Matter,
    tmp_path: Path,
    following: Camera,
) -> None:
    server, output = served(FIRST), tmp_path / "o.mkv"
    run = running(server.url, output, matter=everyone)
    run.more_frames(50)
    server.change(following)
    run.more_frames(150)
    summary = run.end()
    assert not summary.contract.whole.reconnects
    assert {(f.width, f.height) for f in read(output).frames} == {(FIRST.width, FIRST.height)}
    found = steps(output)
    assert len(found) >= 2 * AT_LEAST
    assert all(abs(step) < IN_STEP_SECONDS for _, step in found)


@pytest.mark.parametrize(
    "following",
    [OTHER, replace(OTHER, first_pid=300), Camera(sound="mp2"), Camera(sound="libopus")],
    ids=["picture", "picture and numbers", "sound to mp2", "sound to opus"],
)
def test_its_codec_changes(
    served: Callable[..., MarkServer], running: Callable[..., Running], tmp_path: Path, following: Camera
) -> None:
    """A decoder has one codec only: the source is connected to anew, and until then the slate shows."""
    server, output = served(FIRST), tmp_path / "o.mkv"
    run = running(server.url, output)
    run.more_frames(50)
    server.change(following)
    run.wait(lambda c: c.whole.reconnects["source"] == 1, "the source's return")
    run.more_frames(50)
    run.end()
    after = read(output)
    assert set(colours(after.frames)) <= {"green", "red"}
    assert colours(after.frames)[-1] == "green"
    assert marks(output)[1]  # what it holds of sound can be decoded


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xf1" + b"\xff" * 5,  # marked as a packet of AAC, at no rate that there is
        b"\xff\xf0\x4c\x80\x07\xdf\xfd",  # two at once with a checksum, which FFmpeg never learnt
    ],
)
def test_damaged_sound_does_not_end_a_file(
    served: Callable[..., MarkServer], tmp_path: Path, header: bytes
) -> None:
    """MPEG-TS has AAC in a form that other containers' muxers take apart, and refuse where it is broken."""
    with av.open(served(FIRST).url) as source:
        track = Track.of(source.streams.audio[0])
    path, contract, base = tmp_path / "o.mkv", Contract("x"), Fraction(1, 90_000)
    grey = [torch.full(size, 128, dtype=torch.uint8) for size in ((64, 96), (32, 48), (32, 48))]
    first = LiveFrame(grey, PIXEL_FORMATS["yuv420p"], Colour("bt601", False, 6, 6, 6), 0, base)
    place = Place(Kind.FILE, str(path), "matroska")
    start = Start(first, filler=False, track=track, rate=Fraction(25))
    sink = RelaySink(place, SinkOptions(), contract, start, threading.Event())
    broken = header + b"\xff" * 55
    for number in range(1, 6):
        sink.hear(Sound(broken, number / 25, 1024, Fraction(1, 48_000), track))
        assert sink.write(replace(first, pts=number * 3600), filler=False)
        while sink._in_flight:
            sink.idle()
    sink.close()
    assert contract.whole.dropped[DAMAGED] == 5
    assert len(read(path).frames) == 6

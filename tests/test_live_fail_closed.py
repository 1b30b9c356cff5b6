"""Fail closed: each failure is injected into a live run, and every frame that comes out is looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import read
from live_runs import detail, run
from torch import Tensor

from banet_stream import Matter
from banet_stream.background import Background, Picture, Plain
from banet_stream.contract import LATE, SLATE, Contract
from banet_stream.cover import Cover
from banet_stream.errors import MatteError, OutputError
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame
from banet_stream.live import matte_or_cover
from banet_stream.live_source import LiveFrame
from banet_stream.publish import PublishOptions, Pulse

# A room full of detail: nothing of it may be seen when there is no matte.
ROOM = (
    "lavfi:nullsrc=size=160x120:rate=25,geq="
    "lum='if(mod(floor((X+N)/4)+floor(Y/4),2),220,30)':cb=128:cr=128,format=yuv420p"
)
ROOM_DETAIL, HIDDEN_DETAIL = 20.0, 3.0


def matte_error(_: int) -> None:
    raise MatteError("the network failed")


def out_of_memory(_: int) -> None:
    raise RuntimeError("CUDA out of memory")


def no_memory(_: int) -> None:
    raise MemoryError


def bug(_: int) -> None:
    raise AssertionError("a bug of ours")


def not_a_number(_: int) -> Tensor:
    return torch.full((1, 1, 64, 64), float("nan"))


def wrong_shape(_: int) -> Tensor:
    return torch.ones(3)


def every_other(fails: Callable[[int], Tensor | None]) -> Callable[[int], Tensor | None]:
    return lambda call: fails(call) if call % 2 else None


@pytest.mark.parametrize("cover", ["blur", "slate"])
@pytest.mark.parametrize(
    "fails",
    [matte_error, out_of_memory, no_memory, bug, not_a_number, wrong_shape, every_other(matte_error)],
)
def test_no_matte_no_room(
    stub: Callable[..., Matter], tmp_path: Path, fails: Callable[[int], Tensor | None], cover: str
) -> None:
    """Every frame of the output is looked at."""
    output = tmp_path / "o.mkv"
    summary = run(ROOM, output, stub(fails), cover=cover, slate="red")
    shown = read(output).frames
    assert len(shown) >= 5
    assert sum(summary.contract.whole.covered.values()) >= 2
    for frame in shown:
        assert detail(frame) < HIDDEN_DETAIL


def test_the_room_would_show_if_it_were_let_through(stub: Callable[..., Matter], tmp_path: Path) -> None:
    """That the tests around this one can fail: a matte of all person shows everything."""
    output = tmp_path / "o.mkv"
    run(ROOM, output, stub(lambda _: 1.0))
    assert all(detail(f) > ROOM_DETAIL for f in read(output).frames)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_network_that_overflows_shows_no_room(tmp_path: Path, value: float) -> None:
    """An infinite logit is a matte of 1, all person: the real engine must not let it through."""
    matter = Matter(device="cpu", precision="float32", size=64, engine="torch")
    with torch.no_grad():
        matter.engine.network.head.bias.fill_(value)
    output = tmp_path / "o.mkv"
    summary = run(ROOM, output, matter)
    assert summary.contract.whole.covered["MatteError"] >= 2
    assert all(detail(f) < HIDDEN_DETAIL for f in read(output).frames)


def test_the_slate_is_made_before_it_is_needed(
    stub: Callable[..., Matter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, fitted = [], Picture.rgb
    monkeypatch.setattr(Picture, "rgb", lambda slate, frame: made.append(1) or fitted(slate, frame))
    made_by_then: list[int] = []
    summary = run(ROOM, tmp_path / "o.mkv", stub(lambda _: made_by_then.append(len(made))))
    assert not summary.contract.whole.fillers
    assert not summary.contract.whole.covered
    assert made_by_then[-1] == 1


class BrokenBackground(Background):
    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        raise OSError("the disk with the picture is gone")


def test_a_background_that_fails_shows_no_room(stub: Callable[..., Matter], tmp_path: Path) -> None:
    output = tmp_path / "o.mkv"
    run(ROOM, output, stub(), background=BrokenBackground())
    frames = read(output).frames
    assert len(frames) >= 5
    assert all(detail(f) < HIDDEN_DETAIL for f in frames)


def test_late_frames_go_out_hidden(stub: Callable[..., Matter], tmp_path: Path) -> None:
    def slow(_: int) -> float:
        time.sleep(0.3)
        return 1.0

    output = tmp_path / "o.mkv"
    publish = PublishOptions(deadline_seconds=0.25)
    summary = run(
        ROOM, output, stub(slow), publish=publish, duration_seconds=3.0, background=Plain((0, 0, 0))
    )
    assert summary.contract.whole.dropped[LATE] >= 3
    assert summary.contract.whole.shown == 0
    frames = read(output).frames
    assert len(frames) >= 3
    assert all(detail(f) < HIDDEN_DETAIL for f in frames)


def test_a_network_that_hangs_shows_the_slate_and_does_not_stop_the_end(
    stub: Callable[..., Matter], tmp_path: Path
) -> None:
    release = threading.Event()

    def hang(call: int) -> None:
        if call > 5:
            release.wait(60)

    output = tmp_path / "o.mkv"
    publish = PublishOptions(deadline_seconds=0.5, gap_seconds=30)
    began = time.monotonic()
    try:
        summary = run(ROOM, output, stub(hang), slate="red", duration_seconds=3.0, publish=publish)
        assert time.monotonic() - began < 3 + 2 + 3
    finally:
        release.set()
    assert summary.broken_off
    assert summary.contract.whole.fillers[SLATE] >= 3
    frames = read(output).frames
    assert all(detail(f) < HIDDEN_DETAIL for f in frames)
    red = frames[-1].to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
    assert red[0] > 200
    assert red[1] < 60


def test_an_error_is_not_held_up_by_a_network_that_hangs(stub: Callable[..., Matter]) -> None:
    release = threading.Event()

    def hang(call: int) -> None:
        if call > 1:
            release.wait(60)

    try:
        with pytest.raises(OutputError, match="Connection refused"):
            run(ROOM, "rtsp://127.0.0.1:1/x", stub(hang), duration_seconds=60.0)
    finally:
        release.set()


def test_after_a_gap_the_matte_starts_anew(stub: Callable[..., Matter]) -> None:
    matter = stub()
    stream = matter.stream()
    resets: list[int] = []
    stream.reset = lambda: resets.append(1)  # type: ignore[method-assign]
    grey = [torch.full(s, 128, dtype=torch.uint8) for s in ((64, 96), (32, 48), (32, 48))]
    colour = Colour("bt601", False, 6, 6, 6)
    first = LiveFrame(grey, PIXEL_FORMATS["yuv420p"], colour, 0, Fraction(1, 90_000))
    frames = [first, replace(first, pts=1), *(replace(first, pts=n, connection=1) for n in (2, 3))]
    done = matte_or_cover(frames, stream, Plain((0, 128, 0)), Cover("blur"), Contract("x"), Pulse())
    assert [f.pts for f in done if isinstance(f, LiveFrame)] == [0, 1, 2, 3]
    assert len(resets) == 1

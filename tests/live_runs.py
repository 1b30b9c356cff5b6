"""What tests of live runs share: a network that does as told, a run that is watched, looks at frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from banet_stream import Matter
from banet_stream.backoff import Retry
from banet_stream.contract import Contract
from banet_stream.live import LiveOptions, LiveSummary, process_live
from banet_stream.live_source import CaptureOptions
from banet_stream.publish import PublishOptions
from banet_stream.sinks import SinkOptions

# 25 fps of something that moves, with a person nowhere: what comes out is background.
CAMERA = "lavfi:testsrc2=size=160x120:rate=25"
# Patient with the machine, quick to try again.
OPTIONS = LiveOptions(
    capture=CaptureOptions(5.0, Retry(0.2, 0.5)),
    publish=PublishOptions(SinkOptions(timeout_seconds=5.0), Retry(0.2, 0.5), deadline_seconds=20),
)
SECONDS = 1.5
WAIT_SECONDS = 40.0

Act = Callable[[int], Tensor | float | None]


class Engine:
    """In place of the network: a matte without a person, after ``act`` had its way; what it gives is the
    matte, or alpha everywhere."""

    name, precision, device = "stub", "float32", torch.device("cpu")

    def __init__(self, act: Act = lambda _: None) -> None:
        self.act, self.calls = act, 0

    def __call__(self, image: Tensor) -> Tensor:
        self.calls += 1
        given = self.act(self.calls)
        if not isinstance(given, Tensor):
            given = torch.full((1, 1, *image.shape[2:]), given or 0.0)
        return given.expand(len(image), -1, -1, -1)


def stub_matter(act: Act = lambda _: None) -> Matter:
    """A Matter whose network is an Engine."""
    made = Matter(device="cpu", precision="float32", size=64)
    made.engine = Engine(act)  # type: ignore[assignment]
    return made


def run(source: str, output: Path | str | None, matter: Matter, **wanted: object) -> LiveSummary:
    """A live run from its start to its end; ``wanted`` are LiveOptions, ``background`` and ``watch``."""
    background = wanted.pop("background", "green")
    watch = wanted.pop("watch", None)
    options = replace(LiveOptions(duration_seconds=SECONDS), **wanted)
    return process_live(
        source,
        None if output is None else str(output),
        background=background,
        matter=matter,
        options=options,
        watch=watch,
    )


class Running:
    """A live run in a thread, watched from the test."""

    def __init__(
        self, source: str, output: str | None, matter: Matter, options: LiveOptions, **more: object
    ) -> None:
        self.stop = threading.Event()
        self.contract: Contract | None = None
        self.summary: LiveSummary | None = None
        self.error: BaseException | None = None

        def report(contract: Contract, _: object) -> None:
            self.contract = contract

        def work() -> None:
            try:
                self.summary = process_live(
                    source,
                    output,
                    background="green",
                    matter=matter,
                    options=replace(options, stats_seconds=0.1),
                    stop=self.stop,
                    report=report,
                    **more,
                )
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def wait(self, holds: Callable[[Contract], bool], what: str) -> None:
        """Until something holds of the contract; fails when the run ends or it takes for ever."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if self.contract is not None and holds(self.contract):
                return
            assert self.thread.is_alive(), f"ended while waiting for {what}: {self.error!r}"
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come; {self.contract and vars(self.contract.whole)}")

    def more_frames(self, count: int = 8) -> None:
        """Waits until so many more frames are shown."""
        before = self.contract.whole.shown if self.contract else 0
        self.wait(lambda c: c.whole.shown >= before + count, f"{count} more frames")

    def end(self) -> LiveSummary:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.summary is not None
        return self.summary


def detail(frame: av.VideoFrame) -> float:
    """Mean step between neighbours in a row: much in a room of tiles, little in a blur."""
    luma = frame.to_ndarray(format="gray").astype(int)
    return float(np.abs(np.diff(luma, axis=1)).mean())


def is_green(frame: av.VideoFrame) -> bool:
    red, green, _ = frame.to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
    return bool(green > 90 > red)


def colours(frames: Iterable[av.VideoFrame]) -> list[str]:
    """``green`` (the background), ``red`` (the slate) or ``other``, of every frame."""
    names = []
    for frame in frames:
        red, green, _ = frame.to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
        names.append("red" if red > 200 > green else "green" if green > 90 > red else "other")
    return names

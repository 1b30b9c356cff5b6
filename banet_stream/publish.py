"""The last stage of a live run: frames and sound to a sink, over losses, and fillers while none come."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace

from .backoff import Backoff, Retry
from .contract import LAST, LATE, SINK_AWAY, SINK_SLOW, SLATE, Contract
from .cover import Cover
from .errors import OutputError
from .kinds import Kind, Place
from .live_source import LiveFrame, LiveSource
from .relay_sink import RelaySink
from .sinks import Nowhere, Sink, SinkLost, SinkOptions, Start, VirtualCamera
from .sound import Sound

log = logging.getLogger(__name__)

GAPS = ("slate", "last")
# How often the stage looks whether frames are overdue; fillers come as often.
TICK_SECONDS = 0.2
# RTMP and Matroska count milliseconds: frames are at least this far apart.
SHORTEST_STEP_SECONDS = 0.002
# Packets of sound kept for a sink that is not open yet: what is older comes before its first picture.
EARLY_SOUND = 8


@dataclass(frozen=True)
class PublishOptions:
    """What viewers get.

    ``deadline_seconds``: a frame older than this is late: it goes out hidden.
    ``gap``: ``slate``, or ``last`` for the last frame again, once there was none for ``gap_seconds``. Where a
        recording's next picture is not due yet, the last one stands.
    """

    sink: SinkOptions = field(default_factory=SinkOptions)
    retry: Retry = field(default_factory=Retry)
    deadline_seconds: float = 1.0
    gap: str = "slate"
    gap_seconds: float = 2.0


class Pulse:
    """Since when the matte stage works on a frame: a stage that hangs can't say so itself."""

    def __init__(self) -> None:
        self.captured_seconds: float | None = None

    def overdue(self, deadline_seconds: float) -> bool:
        """Whether the frame in work is past the deadline."""
        since = self.captured_seconds
        return since is not None and time.monotonic() - since > deadline_seconds


class Publisher:
    """Sends frames on; ``place`` is where to.

    Raises:
        OutputError: when the sink can't be opened the first time, when its attempts are used up, or when a
            file can't be written on.
    """

    def __init__(
        self,
        place: Place,
        options: PublishOptions,
        *,
        source: LiveSource,
        cover: Cover,
        contract: Contract,
        pulse: Pulse,
        stop: threading.Event,
        watch: Callable[[LiveFrame], None] | None = None,
    ) -> None:
        self.place, self.options, self.source = place, options, source
        self.cover, self.contract, self.pulse, self.stop, self.watch = cover, contract, pulse, stop, watch
        self.sink: Sink | None = None
        self.encoder = ""
        self._backoff = Backoff(options.retry)
        self._next_attempt = 0.0
        self._last: LiveFrame | None = None  # as it was shown
        self._last_at = self._last_real_at = 0.0  # monotonic
        self._pts = -1
        self._early: deque[Sound] = deque(maxlen=EARLY_SOUND)

    def take(self, item: LiveFrame | Sound | None) -> LiveFrame | None:
        """Whatever comes, or None when nothing did for a while; returns what was shown of it."""
        shown: LiveFrame | None = None
        if isinstance(item, Sound):
            self._hear(item)
        elif item is not None:
            self._last_real_at = time.monotonic()
            if self._last is None:
                self.cover.slate(item)  # kept from now on: when it is needed, memory may be short
            if time.monotonic() - item.captured_seconds > self.options.deadline_seconds:
                self.contract.drop(LATE)
                self._show(self.cover.hide(item), filler=True)
            elif self._show(item, filler=False):
                shown = item
        elif self.sink is not None:
            self._guard(lambda sink: sink.idle())
        self._fill_gap()
        return shown

    def close(self) -> None:
        """Ends the sink in order."""
        if self.sink is not None:
            self.sink.close()
            self.sink = None

    def kill(self) -> None:
        """Ends the sink now; from any thread."""
        sink = self.sink
        if sink is not None:
            sink.kill()

    def _hear(self, sound: Sound) -> None:
        track = self.source.track
        if track is not None and not sound.track.is_like(track):
            return  # left over from an earlier connection: a sink that began with the new kind can't take it
        if self.sink is None:
            self._early.append(sound)
        else:
            self._guard(lambda sink: sink.hear(sound))

    def _fill_gap(self) -> None:
        """The slate or the last frame, when a frame is overdue."""
        now = time.monotonic()
        if self._last is None or now - self._last_at < TICK_SECONDS:
            return
        if self.pulse.overdue(self.options.deadline_seconds):
            self.contract.fill(SLATE)
            self._show(self._now(self.cover.slate(self._last)), filler=True, keep=False)
        elif now - self._last_real_at >= self.options.gap_seconds:
            slate = self.options.gap == "slate" and not self.source.rests
            self.contract.fill(SLATE if slate else LAST)
            filler = self.cover.slate(self._last) if slate else self._last
            self._show(self._now(filler), filler=True, keep=False)

    def _now(self, frame: LiveFrame) -> LiveFrame:
        """``frame`` again, at its time."""
        passed = time.monotonic() - self._last_at
        return replace(frame, pts=self._pts + round(passed / frame.time_base))

    def _show(self, frame: LiveFrame, *, filler: bool, keep: bool = True) -> bool:
        step = round(SHORTEST_STEP_SECONDS / frame.time_base)
        self._pts = max(frame.pts, self._pts + step)
        frame = replace(frame, pts=self._pts)
        self._last_at = time.monotonic()
        if keep:
            self._last = frame
        if self.watch:
            self.watch(frame)
        if self.sink is None:
            return self._open(frame, filler=filler)
        written = self._guard(lambda sink: sink.write(frame, filler=filler))
        if written is False and not filler:
            self.contract.drop(SINK_SLOW)
        return bool(written)

    def _guard(self, action: Callable[[Sink], bool | None]) -> bool | None:
        """Does something with the sink; one that is lost is closed, and opened again later."""
        if self.sink is None:
            return None
        try:
            return action(self.sink)
        except SinkLost as error:
            self.sink.kill()
            self.sink = None
            self._lost(str(error))
            return None

    def _open(self, first: LiveFrame, *, filler: bool) -> bool:
        """Opens the sink with a frame, if its time has come."""
        if time.monotonic() < self._next_attempt:
            if not filler:
                self.contract.drop(SINK_AWAY)
            return False
        again = bool(self.encoder)
        try:
            self.sink = self._sink_of(Start(first, filler, self.source.track, self.source.rate))
        except SinkLost as error:
            if self.stop.is_set():
                return False
            if not again:
                raise OutputError(f"{self.place.name}: can't be opened: {error}") from error
            self._lost(str(error))
            return False
        self.encoder = self.sink.encoder
        while self._early and self.sink is not None:
            self._hear(self._early.popleft())
        if again:
            self._backoff.reset()
            self.contract.reconnect("sink")
            log.warning("%s: is back", self.place.name)
        return True

    def _sink_of(self, start: Start) -> Sink:
        if self.place.kind is Kind.NOWHERE:
            return Nowhere(self.contract, start)
        if self.place.kind is Kind.VIRTUAL_CAMERA:
            return VirtualCamera(self.place, self.contract, start)
        return RelaySink(self.place, self.options.sink, self.contract, start, self.stop)

    def _lost(self, why: str) -> None:
        if self.stop.is_set():
            return  # it is ended, and perhaps broken off
        if self.place.kind is Kind.FILE:
            raise OutputError(f"{self.place.name}: can't be written: {why}; what is there can be played")
        wait = self._backoff.wait_seconds()
        if wait is None:
            raise OutputError(
                f"{self.place.name}: {why}; given up after {self.options.retry.attempts} attempts"
            )
        log.warning("%s: %s; trying again in %.1f s", self.place.name, why, wait)
        self._next_attempt = time.monotonic() + wait


def publish(
    items: Iterable[LiveFrame | Sound | None], publisher: Publisher
) -> Generator[LiveFrame, None, None]:
    """Sends everything on; yields what was shown. The pipeline's last stage."""
    with closing(publisher):
        for item in items:
            shown = publisher.take(item)
            if shown is not None:
                yield shown

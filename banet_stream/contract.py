"""The contract of a live run: latency, frame rates, drops and why, reconnects. Flat memory for weeks."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

# Latencies are counted in buckets that grow by GROWTH: a percentile is right to that share of itself.
SHORTEST_SECONDS, LONGEST_SECONDS, GROWTH = 1e-4, 1e3, 1.01
BUCKETS = math.ceil(math.log(LONGEST_SECONDS / SHORTEST_SECONDS, GROWTH)) + 1

# Why a frame that came in did not go out.
NEWER = "a newer frame came"
LATE = "later than --deadline"
SINK_AWAY = "sink away"
SINK_SLOW = "sink slow"
DAMAGED = "damaged"
# What went out that shows no matted frame.
HIDDEN = "covered, no matte"
SLATE, LAST = "slate", "last frame again"


class Histogram:
    """Latencies in seconds, counted in geometric buckets."""

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0

    def add(self, seconds: float) -> None:
        """Counts one; what lies outside the range goes to its end."""
        position = math.log(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS, GROWTH)
        self.counts[min(BUCKETS - 1, int(position))] += 1
        self.total += 1

    def percentile(self, share: float) -> float:
        """The smallest latency in seconds that ``share`` (0 to 1) of all do not exceed; NaN: none counted."""
        if not self.total:
            return math.nan
        wanted, seen = max(1, math.ceil(share * self.total)), 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen >= wanted:
                return SHORTEST_SECONDS * GROWTH ** (bucket + 1)
        raise AssertionError("counts and total disagree")


@dataclass
class Span:
    """What happened in a span of time; ``ended`` is None while it lasts."""

    began: float
    ended: float | None = None
    latency: Histogram = field(default_factory=Histogram)
    captured: int = 0
    shown: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)  # by why there was no matte
    fillers: Counter[str] = field(default_factory=Counter)  # slate or last frame, while none came
    reconnects: Counter[str] = field(default_factory=Counter)  # source, sink

    @property
    def seconds(self) -> float:
        """How long it lasted so far."""
        return max(1e-9, (time.monotonic() if self.ended is None else self.ended) - self.began)

    @property
    def input_fps(self) -> float:
        """Frames per second that came in."""
        return self.captured / self.seconds

    @property
    def output_fps(self) -> float:
        """Frames per second that went out, fillers not counted."""
        return self.shown / self.seconds

    def latency_ms(self, share: float) -> float:
        """A percentile of capture-to-output latency in milliseconds."""
        return self.latency.percentile(share) * 1000


class Contract:
    """Counts what happens; any thread may call it.

    Args:
        policy: the name of the drop policy, for the table.
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._lock = threading.Lock()
        now = time.monotonic()
        self.whole, self.recent = Span(now), Span(now)

    def capture(self) -> None:
        """A frame was decoded."""
        with self._lock:
            for span in (self.whole, self.recent):
                span.captured += 1

    def show(self, latency_seconds: float) -> None:
        """A frame left for the sink so long after it was captured."""
        with self._lock:
            for span in (self.whole, self.recent):
                span.shown += 1
                span.latency.add(latency_seconds)

    def drop(self, why: str, count: int = 1) -> None:
        """Frames that came in will not go out."""
        self._count("dropped", why, count)

    def cover(self, why: str) -> None:
        """A frame had no matte, and goes out hidden."""
        self._count("covered", why)

    def fill(self, what: str) -> None:
        """No frame came in time: SLATE or LAST went out."""
        self._count("fillers", what)

    def reconnect(self, what: str) -> None:
        """``source`` or ``sink`` was lost and came back."""
        self._count("reconnects", what)

    def _count(self, kind: str, key: str, count: int = 1) -> None:
        with self._lock:
            for span in (self.whole, self.recent):
                getattr(span, kind)[key] += count

    def finish(self) -> None:
        """Stops the clock."""
        with self._lock:
            self.whole.ended = self.recent.ended = time.monotonic()

    def turn(self) -> Span:
        """Ends the recent span, returns it and begins another."""
        with self._lock:
            ended, now = self.recent, time.monotonic()
            ended.ended, self.recent = now, Span(now)
            return ended


def table(contract: Contract, recent: Span | None = None) -> str:
    """The contract in words and figures; ``recent`` adds a column for the latest span."""
    spans = [contract.whole] if recent is None else [recent, contract.whole]
    heads = [f"{span.seconds:.0f} s" for span in spans]
    rows = [("live", heads)]
    for share in (0.5, 0.95, 0.99):
        values = [f"{span.latency_ms(share):.1f}" if span.shown else "-" for span in spans]
        rows.append((f"latency p{share * 100:.0f} ms", values))
    rows.append(("input fps", [f"{span.input_fps:.1f}" for span in spans]))
    rows.append(("output fps", [f"{span.output_fps:.1f}" for span in spans]))
    for kind, always in (
        ("dropped", ()),
        ("covered", ()),
        ("fillers", ()),
        ("reconnects", ("source", "sink")),
    ):
        counters: list[Counter[str]] = [getattr(span, kind) for span in spans]
        if kind != "reconnects":
            rows.append((kind, [str(sum(c.values())) for c in counters]))
        for key in sorted({*always, *counters[-1]}):
            label = f"{key} reconnects" if kind == "reconnects" else f"  {key}"
            rows.append((label, [str(c[key]) for c in counters]))
    width = max(len(label) for label, _ in rows) + 2
    lines = [f"{label:<{width}}" + "".join(f"{v:>12}" for v in values) for label, values in rows]
    return "\n".join([*lines, f"policy: {contract.policy}"])

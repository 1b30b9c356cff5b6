"""One time for a whole live session, whatever the clocks of its connections say."""

from __future__ import annotations

from fractions import Fraction

# A connection's clock that runs ahead of ours, or falls behind, by more than this is set again.
AHEAD_SECONDS, BEHIND_SECONDS = 1.0, 10.0
# What is played at its own pace and comes this much too late waits no more, so that it does not stay late.
UNDERFLOW_SECONDS = 0.5
# The times of one stream rise; by less than this they run back where they are only rounded, or damaged.
BACK_SECONDS = 0.5


class Timeline:
    """Seconds since ``began`` (of the monotonic clock), and their timestamps."""

    time_base = Fraction(1, 90_000)  # RTP's and MPEG's

    def __init__(self, began: float) -> None:
        self.began = began

    def now(self, monotonic_seconds: float) -> float:
        """A monotonic time as seconds of the session."""
        return monotonic_seconds - self.began

    def ticks(self, seconds: float) -> int:
        """Seconds of the session as a timestamp."""
        return round(seconds / self.time_base)

    def connection(self, *, paced: bool) -> ConnectionClock:
        """The clock of a new connection, not yet set."""
        return ConnectionClock(self, paced=paced)


class ConnectionClock:
    """Sets a connection's timestamps into the session: pictures and sound by the same amount, so they stay
    in step, and anew for every connection, so that a gap lasts as long as it lasted."""

    def __init__(self, timeline: Timeline, *, paced: bool) -> None:
        self.timeline, self.paced = timeline, paced
        self._offset: float | None = None
        self._latest: dict[str, float] = {}  # time of the source, by stream

    def place(self, source_seconds: float, arrived: float, stream: str = "picture") -> float:
        """When in the session something of this connection's ``stream`` belongs, that arrived at a monotonic
        time. A clock that steps back, as of a sender that begins anew, is set again at once."""
        now = self.timeline.now(arrived)
        stepped_back = source_seconds < self._latest.get(stream, source_seconds) - BACK_SECONDS
        if self._offset is None or (stepped_back and not self.paced):
            self._offset = now - source_seconds
            self._latest.clear()
        self._latest[stream] = max(source_seconds, self._latest.get(stream, source_seconds))
        late = now - (source_seconds + self._offset)
        if self.paced and late > UNDERFLOW_SECONDS:
            self._offset += late
        elif late > BEHIND_SECONDS or (late < -AHEAD_SECONDS and not self.paced):
            self._offset = now - source_seconds
        return source_seconds + self._offset

"""A source of a live session, over all its connections: what is known of it, and its frames."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from fractions import Fraction

from .backoff import Retry
from .contract import Contract
from .fitting import Shape
from .frame import Frame
from .kinds import Place
from .sound import Track
from .timeline import Timeline


@dataclass(frozen=True)
class LiveFrame(Frame):
    """A frame of a live source."""

    captured_seconds: float = 0.0  # of the monotonic clock: when its packet had arrived
    connection: int = 0  # of the source's; one frame does not follow another's


@dataclass(frozen=True)
class CaptureOptions:
    """How a live source is read.

    ``timeout_seconds``: a source without a picture for so long is given up and connected to anew.
    """

    timeout_seconds: float = 5.0
    retry: Retry = field(default_factory=Retry)
    audio: bool = True


class LiveSource:
    """A place that pictures come from, through any number of connections.

    Args:
        place: as ``kinds.input_place`` tells it.
        stop: once set, the source ends.
    """

    def __init__(
        self, place: Place, options: CaptureOptions, contract: Contract, stop: threading.Event
    ) -> None:
        self.place, self.options, self.contract, self.stop = place, options, contract, stop
        self.timeline = Timeline(time.monotonic())
        self.shape: Shape | None = None  # of the first picture: all later ones are made to fit it
        self.rate: Fraction | None = None
        self.track: Track | None = None  # the sound of the latest connection
        self._rests_until = 0.0  # monotonic

    @property
    def name(self) -> str:
        """For people: without credentials."""
        return self.place.name

    @property
    def rests(self) -> bool:
        """Whether nothing comes on purpose: what a recording has next is not due yet."""
        return time.monotonic() < self._rests_until

    def rest(self, seconds: float) -> None:
        """Says that nothing will come for so long."""
        self._rests_until = time.monotonic() + seconds

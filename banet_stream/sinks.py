"""What live pictures go to: the interface of a sink, and the sinks that need no process of their own."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .contract import Contract
from .errors import OutputError
from .kinds import Place
from .live_source import LiveFrame
from .redact import redact
from .sound import Sound, Track

ASSUMED_RATE = Fraction(30)
# A sink has so long to end in order.
CLOSE_SECONDS = 1.0


class SinkLost(Exception):
    """A sink can't be written to; the message says why. It may come back."""


@dataclass(frozen=True)
class SinkOptions:
    """How pictures are written; None: by size."""

    crf: int | None = None
    bit_rate: int | None = None  # bits per second
    timeout_seconds: float = 5.0


@dataclass(frozen=True)
class Start:
    """What a sink begins with; later frames have the size and layout of ``first``.

    ``filler``: the latency of ``first`` is not counted. ``track``: the sound, if there is any.
    ``rate``: frames per second to expect; None: unknown.
    """

    first: LiveFrame
    filler: bool
    track: Track | None
    rate: Fraction | None


class Sink(ABC):
    """An opened sink, its first frame written. Every method but ``close`` may raise SinkLost."""

    encoder = ""

    @abstractmethod
    def write(self, frame: LiveFrame, *, filler: bool) -> bool:
        """Takes a frame; False: not now, it is too slow. A filler's latency is not counted."""

    def hear(self, sound: Sound) -> None:
        """Takes sound; a sink without has nothing to do."""
        return

    def idle(self) -> None:
        """Called when there is nothing to write: raises SinkLost if it is gone."""
        return

    @abstractmethod
    def close(self) -> None:
        """Ends it, within CLOSE_SECONDS."""

    def kill(self) -> None:
        """Ends it now; from any thread."""
        return


class Nowhere(Sink):
    """No OUTPUT: the preview is all."""

    encoder = "none"

    def __init__(self, contract: Contract, start: Start) -> None:
        self._contract = contract
        self.write(start.first, filler=start.filler)

    def write(self, frame: LiveFrame, *, filler: bool) -> bool:
        """See Sink."""
        if not filler:
            self._contract.show(time.monotonic() - frame.captured_seconds)
        return True

    def close(self) -> None:
        """See Sink."""
        return


class VirtualCamera(Sink):
    """A camera that other programs see, through pyvirtualcam (v4l2loopback on Linux).

    Raises:
        OutputError: when pyvirtualcam is not installed. SinkLost: when there is no such device.
    """

    encoder = "none"

    def __init__(self, place: Place, contract: Contract, start: Start) -> None:
        try:
            import pyvirtualcam  # noqa: PLC0415  (only where one is asked for)
        except ImportError as error:
            raise OutputError(
                f"{place.name}: a virtual camera needs pyvirtualcam; pip install 'banet-stream[camera]'"
            ) from error
        device = place.url if place.url.startswith("/") else None
        try:
            self._camera = pyvirtualcam.Camera(
                start.first.width,
                start.first.height,
                float(start.rate or ASSUMED_RATE),
                fmt=pyvirtualcam.PixelFormat.I420,
                device=device,
            )
        except (RuntimeError, OSError) as error:
            raise SinkLost(f"no virtual camera there ({redact(str(error).strip())})") from error
        self._contract = contract
        self.write(start.first, filler=start.filler)

    def write(self, frame: LiveFrame, *, filler: bool) -> bool:
        """See Sink."""
        samples = np.concatenate([p.contiguous().numpy().reshape(-1) for p in frame.planes])
        try:
            self._camera.send(samples)
        except (RuntimeError, OSError) as error:
            raise SinkLost(str(error)) from error
        if not filler:
            self._contract.show(time.monotonic() - frame.captured_seconds)
        return True

    def close(self) -> None:
        """See Sink."""
        self._camera.close()

"""One clock for files whose own clock jumps: joined MPEG-TS, recordings of broadcasts, HLS with breaks."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

from .frame import Packet

# Their clocks may jump (FFmpeg's AVFMT_TS_DISCONT); elsewhere a gap is a gap.
FORMATS = ("mpegts", "mpeg", "hls")
# What comes later than this after all else, or before what its stream has had already, is another part. (A
# shorter gap is the recording's own, a smaller step back is damage; FFmpeg's tool has the same two numbers.)
LARGEST_GAP_SECONDS, LARGEST_STEP_BACK_SECONDS = Fraction(10), Fraction(1, 10)


def delay(packet: Packet, ticks: int) -> None:
    """Raises the packet's timestamps by so many of its time base."""
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks


def seams_in(container: av.container.InputContainer) -> Seams | None:
    """For a file whose clock may jump."""
    return Seams() if container.format.name in FORMATS else None


@dataclass
class Position:
    """How far a stream of pictures or sound has come, in seconds of the one clock."""

    last: Fraction  # when its last packet is decoded
    end: Fraction  # when the next one is due
    part: Fraction  # to which it belongs: what is added to its times


class Seams:
    """Adds to a file's timestamps, packet by packet and in the file's order, so that its parts follow each
    other.

    Pictures and sound of a part move alike, so they stay in step. Around a seam packets of both parts are
    mixed, and a damaged packet may look like a part of its own: each goes to that of the last two parts in
    which it comes nearest to what its stream had before.
    """

    def __init__(self) -> None:
        self.found = 0  # parts after the first
        self._parts = [Fraction(0)]  # seconds to be added, in the last two parts; the newest first
        self._seam = Fraction(0)  # when the newest begins
        self._streams: dict[int, Position] = {}

    def place(self, packet: Packet) -> bool:
        """Changes the timestamps of a file's next packet.

        Returns:
            False for sound at a part's beginning that would be heard at once with the end of the part before.
        """
        base, stream = packet.time_base, packet.stream
        part, kept = self._parts[0], True
        if packet.dts is not None and base and stream.type in ("video", "audio"):
            length = (packet.duration or 0) * base
            part = self._part(stream.index, packet.dts * base)
            kept = self._go_on(stream.index, packet.dts * base, length, part)
        elif stream.index in self._streams:
            part = self._streams[stream.index].part
        if part and base:
            delay(packet, round(part / base))
        return kept or stream.type == "video"  # other pictures need it

    def _part(self, index: int, seconds: Fraction) -> Fraction:
        """The part to which a packet of a stream belongs."""
        latest = max((position.end for position in self._streams.values()), default=seconds)
        here = self._streams.get(index)
        newest = self._parts[0]
        near = abs(seconds + newest - latest) <= LARGEST_GAP_SECONDS
        if here is not None:
            earliest, most = here.last - LARGEST_STEP_BACK_SECONDS, latest + LARGEST_GAP_SECONDS
            fitting = [part for part in self._parts if earliest <= seconds + part <= most]
            if fitting:
                due = here.end
                return min(fitting, key=lambda part: abs(seconds + part - due))
            near = near and here.part != newest  # it enters the newest part
        if near:
            return newest
        self.found += 1
        self._parts, self._seam = [latest - seconds, newest], latest
        return self._parts[0]

    def _go_on(self, index: int, seconds: Fraction, length: Fraction, part: Fraction) -> bool:
        """Notes where a stream is now; False: it was there already."""
        now = seconds + part
        before = self._streams.get(index)
        if before is not None and part != before.part and now + length / 2 < before.end:
            return False
        step = length or (now - before.last if before is not None else Fraction(0))
        self._streams[index] = Position(now, now + max(step, Fraction(0)), part)
        if len({position.part for position in self._streams.values()}) == 1:
            self._parts = [part]
        elif now - self._seam > LARGEST_GAP_SECONDS:  # who has not come by now is led into the newest
            self._parts = self._parts[:1]
        return True

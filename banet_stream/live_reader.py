"""Pictures and sound of one connection of a live source, each at its time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
from av.codec.context import Flags
from av.error import FFmpegError

from .contract import DAMAGED
from .decode import MAX_READ_ERRORS, demux, end_seconds
from .errors import InputError
from .fitting import Shape
from .kinds import Kind
from .live_source import LiveFrame, LiveSource
from .opening import frame_rate
from .seams import seams_in
from .sound import Sound, Track

log = logging.getLogger(__name__)

# Arrival times of packets that the decoder still holds.
MAX_ARRIVALS = 64
# Sound of a recording that waits for its time while pictures are looked for behind it: minutes of it.
HELD_SOUND_BYTES = 32 * 2**20
# Formats without times: those that FFmpeg gives are of a rate it assumes. Live, pictures belong where they
# arrive: cameras send JPEGs by HTTP at any rate.
TIMELESS = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo", "jpeg_pipe")
# Pictures of a stream without times, such as raw H.264 that names no rate.
ASSUMED_RATE = Fraction(25)


class Reader:
    """Demuxes and decodes one connection."""

    def __init__(
        self,
        source: LiveSource,
        container: av.container.InputContainer,
        video: av.VideoStream,
        abandoned: threading.Event,
    ) -> None:
        self.source, self.container, self.video, self.abandoned = source, container, video, abandoned
        kind = source.place.kind
        # Whatever a file does not declare, it ends; an HTTP address without a duration may be a camera, and a
        # playlist without one (FFmpeg adds it up once there is EXT-X-ENDLIST) is still being written.
        declared = kind in (Kind.HTTP, Kind.HLS) and container.duration is not None
        self.recorded = kind is Kind.FILE or declared
        # These give what they have at once; others give it when it happens.
        self.paced = self.recorded or kind in (Kind.HLS, Kind.LAVFI)
        self.error: Exception | None = None
        # Frame threads would hold back a frame each. A recording loses nothing by reordering.
        video.thread_type = "SLICE"
        if not self.recorded:
            video.codec_context.flags |= Flags.low_delay
        self.rate = frame_rate(video)
        source.rate = source.rate or self.rate
        sounds = container.streams.audio if source.options.audio else ()
        self.audio = sounds[0] if sounds else None
        source.track = self.track = Track.of(self.audio) if self.audio is not None else None
        self.times = source.timeline.connection(paced=self.paced)
        self.arrivals: dict[int | None, float] = {}
        self.strange = 0  # packets of sound in a row that are of another kind
        self.untimed = 0  # pictures of a recording that have no time
        self.reached = 0.0  # in a recording, the end of the latest packet: seconds by its own clock
        self.held: deque[Sound] = deque()  # sound of a recording, by the source's own time
        self.held_bytes = 0

    def items(self) -> Iterator[LiveFrame | Sound]:
        """Pictures and sound in the order of the source."""
        for packet in self.packets():
            arrived = time.monotonic()
            if self.audio is not None and packet.stream is self.audio:
                yield from self.hear(packet, arrived)
            else:
                yield from self.see(packet, arrived)
        if self.error is None:
            yield from self.due_sound()

    def packets(self) -> Iterator[av.Packet]:
        """Demuxes until the source ends, fails or is abandoned."""
        streams = [self.video] if self.audio is None else [self.video, self.audio]
        seams = seams_in(self.container) if self.paced else None  # others are set by when they arrive
        try:
            for packet in demux(self.container, streams, self.note_damage):
                self.reached = max(self.reached, end_seconds(packet))
                if seams is None or seams.place(packet):
                    yield packet
                if self.abandoned.is_set():
                    return
        except (FFmpegError, OSError) as error:
            self.error = error

    @property
    def lacks(self) -> float:
        """Seconds of a recording's declared length that did not come; 0 where it declares none, or where that
        may be the length of a stream which is not read."""
        others = len(self.container.streams) - (1 if self.audio is None else 2)
        if not self.recorded or self.container.duration is None or others:
            return 0.0
        begins = (self.container.start_time or 0) / av.time_base
        return max(0.0, begins + self.container.duration / av.time_base - self.reached)

    def note_damage(self, error: Exception) -> None:
        log.debug("damaged packet: %s", error)
        self.source.contract.drop(DAMAGED)

    def hear(self, packet: av.Packet, arrived: float) -> Iterator[Sound]:
        if packet.pts is None or not packet.size or packet.time_base is None:
            return
        assert self.track is not None
        if not self.track.may_hold(bytes(packet)):
            self.source.contract.drop(DAMAGED)
            self.strange += 1
            if self.strange >= MAX_READ_ERRORS:
                raise InputError(f"{self.source.name}: its sound is no longer {self.track.codec}")
            return
        self.strange = 0
        seconds = float(packet.pts * packet.time_base)
        if not self.recorded:
            yield Sound.of(packet, self.track, self.times.place(seconds, arrived, "sound"))
            return
        self.held.append(Sound.of(packet, self.track, seconds))
        self.held_bytes += packet.size
        while self.held_bytes > HELD_SOUND_BYTES:
            yield self.oldest_sound(self.due(self.held[0]))

    def due_sound(self, until: float = math.inf) -> Iterator[Sound]:
        """The held sound that is due by then in the session, each packet at its time."""
        while self.held and not self.abandoned.is_set() and (due := self.due(self.held[0])) <= until:
            yield self.oldest_sound(due)

    def due(self, sound: Sound) -> float:
        """When in the session held sound is to be heard."""
        return self.times.place(sound.seconds, time.monotonic())

    def oldest_sound(self, due: float) -> Sound:
        """The sound that was held longest, at its time."""
        sound = self.held.popleft()
        self.held_bytes -= len(sound.data)
        self.wait_for(due)
        return replace(sound, seconds=due)

    def see(self, packet: av.Packet, arrived: float) -> Iterator[LiveFrame | Sound]:
        if packet.size:
            self.arrivals[packet.pts] = arrived
            if len(self.arrivals) > MAX_ARRIVALS:
                del self.arrivals[next(iter(self.arrivals))]
        try:
            pictures = [f for f in packet.decode() if isinstance(f, av.VideoFrame)]
        except (FFmpegError, OSError) as error:
            self.note_damage(error)
            return
        for picture in pictures:
            captured = self.arrivals.pop(picture.pts, arrived)
            seconds = self.time_of(picture, captured)
            if self.paced:
                yield from self.due_sound(seconds)
                captured = max(captured, self.wait_for(seconds))
            shape = self.source.shape = self.source.shape or Shape.of(picture, self.video)
            self.source.contract.capture()
            yield LiveFrame(
                planes=shape.planes(picture),
                format=shape.format,
                colour=shape.colour,
                pts=self.source.timeline.ticks(seconds),
                time_base=self.source.timeline.time_base,
                sample_aspect_ratio=shape.sample_aspect_ratio,
                captured_seconds=captured,
            )

    def time_of(self, picture: av.VideoFrame, captured: float) -> float:
        """When in the session a picture belongs."""
        timeless = not self.paced and self.container.format.name in TIMELESS
        if picture.pts is not None and picture.time_base is not None and not timeless:
            return self.times.place(float(picture.pts * picture.time_base), captured)
        if not self.recorded:
            return self.source.timeline.now(captured)
        self.untimed += 1
        rate = self.video.guessed_rate or self.rate or ASSUMED_RATE
        return self.times.place(float((self.untimed - 1) / rate), captured)

    def wait_for(self, seconds: float) -> float:
        """Waits until it is so late in the session; returns the monotonic time then."""
        wait = max(0.0, seconds - self.source.timeline.now(time.monotonic()))
        if self.recorded and not self.abandoned.is_set():
            self.source.rest(wait)
        self.abandoned.wait(wait)
        return time.monotonic()

"""Live sources: pictures and sound as they come, over losses, with nothing that can hang for ever."""

from __future__ import annotations

import errno
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction

import av
from av.codec.context import Flags
from av.error import FFmpegError, InvalidDataError, ProtocolNotFoundError

from .backoff import Backoff, Retry
from .contract import DAMAGED, Contract
from .decode import MAX_READ_ERRORS
from .errors import InputError
from .fitting import Shape
from .frame import Frame
from .kinds import Kind, Place
from .opening import check_file, picture_streams, reason
from .pipeline import Cancelled, Channel
from .redact import redact
from .sound import Sound, Track
from .timeline import Timeline

log = logging.getLogger(__name__)

# What a connection's thread may be ahead of the pipeline, which takes everything at once.
READ_AHEAD = 8
# How often a waiting capture looks at its watchdog and at the request to stop.
LOOK_SECONDS = 0.1
# Opening has its own limits, of two steps each as long as reading; the watchdog comes after them.
OPENING_STEPS, WATCHDOG_SLACK_SECONDS = 2, 1.0
# Arrival times of packets that the decoder still holds.
MAX_ARRIVALS = 64
# Sound of a recording that waits for its time while pictures are looked for behind it: minutes of it.
HELD_SOUND_BYTES = 32 * 2**20
# Pictures of a stream without times, such as raw H.264 that names no rate.
ASSUMED_RATE = Fraction(25)


@dataclass(frozen=True)
class LiveFrame(Frame):
    """A frame of a live source."""

    captured_seconds: float = 0.0  # of the monotonic clock: when its packet had arrived
    after_gap: bool = False  # the first one after a loss: it does not follow the one before


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


def capture(source: LiveSource) -> Generator[LiveFrame | Sound, None, None]:
    """What the source gives, over losses. The pipeline's first stage.

    Raises:
        InputError: when the first connection fails, or the attempts after a loss are used up.
    """
    backoff = Backoff(source.options.retry)
    delivered = lost = False
    while not source.stop.is_set():
        connection = Connection(source)
        connection.start()
        try:
            for item in connection.items():
                if isinstance(item, LiveFrame) and (lost or not delivered):
                    if lost:
                        source.contract.reconnect("source")
                        log.warning("%s: is back", source.name)
                    item = replace(item, after_gap=lost)  # noqa: PLW2901
                    delivered, lost = True, False
                    backoff.reset()
                yield item
        finally:
            connection.abandon()
        if source.stop.is_set() or (connection.finished and delivered):
            return
        why = connection.why
        if not delivered:
            raise InputError(f"{source.name}: {why}")
        wait = backoff.wait_seconds()
        if wait is None:
            raise InputError(f"{source.name}: {why}; given up after {source.options.retry.attempts} attempts")
        log.warning("%s: %s; trying again in %.1f s", source.name, why, wait)
        lost = True
        source.stop.wait(wait)


class Connection:
    """One stay at a source, in a thread that is left behind if it does not come back from a read."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.finished = False  # a recording came to its end
        self.error: Exception | None = None
        self._silent = self._unanswered = self._opened = False
        self._channel: Channel[LiveFrame | Sound] = Channel(READ_AHEAD, tick_seconds=LOOK_SECONDS)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="banet-connection", daemon=True)

    def start(self) -> None:
        """Begins to open the source."""
        self._thread.start()

    def abandon(self) -> None:
        """Lets go of the connection; its thread closes it as soon as it can."""
        self._abandoned.set()
        self._channel.cancel()

    def items(self) -> Iterator[LiveFrame | Sound]:
        """What comes, until the source ends, fails, falls silent or is stopped."""
        limit = self.source.options.timeout_seconds
        seen = time.monotonic()
        opening = True
        for item in self._channel:
            now = time.monotonic()
            if self.source.stop.is_set():
                return
            if isinstance(item, LiveFrame):
                seen, opening = now, False
            elif self.source.rests:
                seen = now
            if now - seen > limit * (OPENING_STEPS if opening else 1) + WATCHDOG_SLACK_SECONDS:
                self._silent = True
                return
            if item is not None:
                yield item

    @property
    def why(self) -> str:
        """What ended it, for people."""
        limit = f"{self.source.options.timeout_seconds:g} s"
        if self._unanswered:
            return f"no answer within {limit}"
        if self._silent or isinstance(self.error, (TimeoutError, av.error.ExitError)):
            return f"no picture for {limit}"
        if self.error is None:
            return "it ended" if self.finished else "the connection ended"
        return trouble(self.error, self.source.place, "read" if self._opened else "opened")

    def _work(self) -> None:
        try:
            with closing(self._open()) as container:
                self._opened = True
                self._read(container)
        except Cancelled:
            return
        except Exception as error:  # every failure of a connection is a reason to make another
            self.error = error
        try:
            self._channel.end()
        except Cancelled:
            return

    def _open(self) -> av.container.InputContainer:
        began = time.monotonic()
        try:
            return open_live(self.source)
        except (FFmpegError, OSError):
            # FFmpeg gives many names to an open that was broken off by its limit.
            self._unanswered = time.monotonic() - began >= self.source.options.timeout_seconds
            raise

    def _read(self, container: av.container.InputContainer) -> None:
        if self._abandoned.is_set():
            return  # another connection tells by now what the source has
        streams = picture_streams(container)
        if not streams:
            raise InputError(f"{self.source.name}: no video stream in it")
        reader = Reader(self.source, container, streams[0], self._abandoned)
        for item in reader.items():
            self._channel.put(item)
        self.finished = reader.recorded and reader.error is None
        self.error = reader.error


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
        # Whatever a file does not declare, it ends; an HTTP address without a duration may be a camera.
        self.recorded = kind is Kind.FILE or (kind is Kind.HTTP and container.duration is not None)
        # These give what they have at once; others give it when it happens.
        self.paced = self.recorded or kind in (Kind.HLS, Kind.LAVFI)
        self.error: Exception | None = None
        # Frame threads would hold back a frame each. A recording loses nothing by reordering.
        video.thread_type = "SLICE"
        if not self.recorded:
            video.codec_context.flags |= Flags.low_delay
        self.rate = video.average_rate or video.guessed_rate
        source.rate = source.rate or self.rate
        sounds = container.streams.audio if source.options.audio else ()
        self.audio = sounds[0] if sounds else None
        source.track = self.track = Track.of(self.audio) if self.audio is not None else None
        self.times = source.timeline.connection(paced=self.paced)
        self.arrivals: dict[int | None, float] = {}
        self.strange = 0  # packets of sound in a row that are of another kind
        self.untimed = 0  # pictures of a recording that have no time
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
        """Demuxes over damaged places, until the source ends or fails."""
        streams = [self.video] if self.audio is None else [self.video, self.audio]
        errors = 0
        packets = self.container.demux(streams)
        while not self.abandoned.is_set():
            try:
                packet = next(packets)
                errors = 0
                yield packet
            except StopIteration:
                return
            except InvalidDataError as error:
                errors += 1
                self.source.contract.drop(DAMAGED)
                if errors >= MAX_READ_ERRORS:
                    self.error = error
                    return
                packets = self.container.demux(streams)
            except (FFmpegError, OSError) as error:
                self.error = error
                return

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
            yield Sound.of(packet, self.track, self.times.place(seconds, arrived))
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
            log.debug("damaged packet: %s", error)
            self.source.contract.drop(DAMAGED)
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
        if picture.pts is not None and picture.time_base is not None:
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


def open_live(source: LiveSource) -> av.container.InputContainer:
    """``av.open`` with limits to everything, and with what a live source needs."""
    place = source.place
    if place.kind is Kind.FILE:
        check_file(place.url)
    target = f"file:{place.url}" if place.kind is Kind.FILE else place.url
    limit = source.options.timeout_seconds
    return av.open(target, format=place.format, options=dict(place.options), timeout=(limit, limit))


def trouble(error: Exception, place: Place, doing: str) -> str:
    """What went wrong with a connection while it was ``opened`` or ``read``, for people."""
    if isinstance(error, InputError):
        return str(error).removeprefix(f"{place.name}: ")
    if isinstance(error, ProtocolNotFoundError):
        return f"the FFmpeg of this PyAV has no {place.kind.value}; use rtsp://, rtmp:// or http://"
    if place.kind is Kind.WEBCAM:
        return webcam_trouble(error, place)
    return f"can't be {doing} ({redact(reason(error))})"


def webcam_trouble(error: Exception, place: Place) -> str:
    """What a video device's error means to the person before it."""
    number = getattr(error, "errno", None)
    asked = ", ".join(f"{k} {v}" for k, v in place.options.items())
    if number == errno.EBUSY:
        return "is busy: another program uses the webcam; close it first"
    if number in (errno.EACCES, errno.EPERM):
        return "no permission to use it; on most systems its users are in the group 'video'"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "no such webcam, or it was unplugged"
    if number == errno.EINVAL and asked:
        return f"the webcam does not offer {asked}; leave one of these options out"
    if number == errno.ENOTTY:
        return "is no webcam"
    return f"the webcam can't be read ({reason(error)})"

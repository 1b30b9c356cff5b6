"""Live sources: pictures and sound as they come, over losses, with nothing that can hang for ever."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace

import av
from av.error import FFmpegError, ProtocolNotFoundError

from .backoff import Backoff
from .errors import InputError
from .kinds import Kind, Place
from .live_reader import Reader
from .live_source import LiveFrame, LiveSource
from .opening import check_file, check_matrix, picture_streams, reason
from .pipeline import Cancelled, Channel
from .redact import redact
from .sound import Sound

log = logging.getLogger(__name__)

# What a connection's thread may be ahead of the pipeline, which takes everything at once.
READ_AHEAD = 8
# Of a recording's declared length: containers round, and sound may go on after the last picture.
LACKING_SECONDS = 2.0
# How often a waiting capture looks at its watchdog and at the request to stop.
LOOK_SECONDS = 0.1
# Opening has its own limits, of two steps each as long as reading; the watchdog comes after them.
OPENING_STEPS, WATCHDOG_SLACK_SECONDS = 2, 1.0


def capture(source: LiveSource) -> Generator[LiveFrame | Sound, None, None]:
    """What the source gives, over losses. The pipeline's first stage.

    Raises:
        InputError: when the first connection fails, a recording breaks off (it would begin again from its
            top), or the attempts after a loss are used up.
    """
    backoff = Backoff(source.options.retry)
    delivered = lost = live = False
    number = 0  # of the connection, on every frame: any of them may give way to a newer one
    while not source.stop.is_set():
        connection = Connection(source, after_live=live)
        connection.start()
        try:
            for item in connection.items():
                if isinstance(item, LiveFrame):
                    if lost:
                        source.contract.reconnect("source")
                        log.warning("%s: is back", source.name)
                        number += 1
                    if lost or not delivered:
                        backoff.reset()
                    delivered, lost = True, False
                    yield replace(item, connection=number)
                else:
                    yield item
        finally:
            connection.abandon()
        live = live or connection.recorded is False
        if source.stop.is_set() or (connection.finished and delivered):
            return
        why = connection.why
        if not delivered:
            raise InputError(f"{source.name}: {why}")
        if connection.recorded:
            raise InputError(f"{source.name}: {why}; what came before is written, and is not begun again")
        wait = backoff.wait_seconds()
        if wait is None:
            raise InputError(f"{source.name}: {why}; given up after {source.options.retry.attempts} attempts")
        log.warning("%s: %s; trying again in %.1f s", source.name, why, wait)
        lost = True
        source.stop.wait(wait)


class Connection:
    """One stay at a source, in a thread that is left behind if it does not come back from a read.

    ``after_live``: one before it was live. A playlist of HLS that is a recording by now was ended meanwhile:
    what it holds was shown, and is not shown again.
    """

    def __init__(self, source: LiveSource, *, after_live: bool = False) -> None:
        self.source, self.after_live = source, after_live
        self.finished = False  # a recording came to its end
        self.recorded: bool | None = None  # whether what was opened is a recording; None: nothing was
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
        check_matrix(self.source.name, streams[0])
        reader = Reader(self.source, container, streams[0], self._abandoned)
        self.recorded = reader.recorded
        if self.source.place.kind is Kind.HLS and reader.recorded and self.after_live:
            self.finished = True
            return
        for item in reader.items():
            self._channel.put(item)
        self.finished = reader.recorded and reader.error is None
        if self.finished and reader.lacks > LACKING_SECONDS:
            log.warning("%s: its last %.1f s are missing: cut off or damaged", self.source.name, reader.lacks)
        self.error = reader.error


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

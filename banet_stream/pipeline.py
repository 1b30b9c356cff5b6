"""Stages that overlap: each a generator function (items in, items out) on a thread of its own.

End of stream is the end of a stage's ``for``; flushing is the code after it; cleanup is its ``with``.
The first error cancels every channel: blocked stages wake up with ``Cancelled``, close what they hold in
their own thread, all threads are joined, and the error is raised to the caller.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Items between two stages: enough to ride out an encoder's hiccup, few enough that 4K frames stay small.
CAPACITY = 8
# Packets of sound that a mailbox holds: some seconds of them.
PASSING = 256
# So long after a Ctrl-C for the stages to end; one that waits for ever, as for a silent pipe, is left behind.
INTERRUPTED_SECONDS = 3.0
THREAD_NAMES = "banet-"


class Cancelled(Exception):
    """Raised in a stage that waits on a channel when another stage has failed."""


class Channel(Generic[T]):
    """A bounded queue with one writer and one reader. ``put`` waits while it is full.

    With ``tick_seconds`` an iteration yields None whenever nothing came for so long.
    """

    def __init__(self, capacity: int, *, tick_seconds: float | None = None) -> None:
        self._items: deque[T] = deque()
        self._capacity, self._tick_seconds = capacity, tick_seconds
        self._changed = threading.Condition()
        self._ended = self._cancelled = False
        self.put_wait_seconds = self.get_wait_seconds = 0.0

    def put(self, item: T) -> None:
        """Appends ``item``; raises Cancelled when the pipeline is being torn down."""
        with self._changed:
            began = time.perf_counter()
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._cancelled)
            self.put_wait_seconds += time.perf_counter() - began
            if self._cancelled:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                began = time.perf_counter()
                came = self._changed.wait_for(
                    lambda: self._items or self._ended or self._cancelled, self._tick_seconds
                )
                self.get_wait_seconds += time.perf_counter() - began
                if self._cancelled:
                    raise Cancelled
                if came and not self._items:
                    return
                item = self._items.popleft() if came else None
                self._changed.notify_all()
            yield item  # type: ignore[misc]  # None only where ticks were asked for

    def end(self) -> None:
        """Says that nothing more will be put; what is inside is still delivered."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Wakes both sides with Cancelled and drops what is inside."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()


class Mailbox(Channel[T]):
    """For live work: one place for a picture, and a newer one takes it. ``put`` never waits.

    Args:
        is_picture: whether an item is a picture. What is not (sound) keeps its turn, up to PASSING items;
            beyond that the oldest goes.
        dropped: called with every item that gave way.
        tick_seconds: as for Channel.
    """

    def __init__(
        self,
        *,
        is_picture: Callable[[T], bool],
        dropped: Callable[[T], None],
        tick_seconds: float | None = None,
    ) -> None:
        super().__init__(PASSING, tick_seconds=tick_seconds)
        self._is_picture, self._dropped = is_picture, dropped

    def put(self, item: T) -> None:
        """Leaves ``item``; raises Cancelled when the pipeline is being torn down."""
        picture = self._is_picture(item)
        with self._changed:
            if self._cancelled:
                raise Cancelled
            alike = [i for i, held in enumerate(self._items) if self._is_picture(held) == picture]
            gone = None
            if len(alike) >= (1 if picture else self._capacity):
                gone = self._items[alike[0]]
                del self._items[alike[0]]
            self._items.append(item)
            self._changed.notify_all()
        if gone is not None:
            self._dropped(gone)


@dataclass(frozen=True)
class StageTime:
    """What a stage spent: ``busy_seconds`` working, the rest waiting for its neighbours."""

    name: str
    busy_seconds: float
    wait_seconds: float


Stage = Callable[[Iterable[Any]], Iterator[Any]]


class Run:
    """One run: part 0 is the source, part i the i-th stage, channel i lies between parts i and i + 1.

    Every part but the last has a thread; the last one runs in the calling thread. KeyboardInterrupt therefore
    lands in it, and is treated like any other error.
    """

    def __init__(
        self, source: Iterable[Any], stages: Sequence[Stage], channels: Sequence[Channel[Any]]
    ) -> None:
        self.source, self.stages, self.channels = source, stages, channels
        self.names = [stage_name(part) for part in (source, *stages)]
        self.seconds = [0.0] * len(self.names)
        self.failures: list[BaseException] = []
        self.lock = threading.Lock()
        self.left_behind: list[str] = []  # names of parts that did not end in time
        self._deadline: float | None = None  # monotonic: when waiting for them ends

    def finish(self, *, join_seconds: float | None = None) -> list[StageTime]:
        """Runs the source through the stages until it ends. Parts that do not end ``join_seconds`` after the
        last one are left behind, and so are those that do not end INTERRUPTED_SECONDS after a Ctrl-C.

        Returns the time every part spent; raises the first error.
        """
        last = len(self.stages)
        threads = [
            threading.Thread(
                target=self.work, args=(part,), name=THREAD_NAMES + self.names[part], daemon=True
            )
            for part in range(last)
        ]
        for thread in threads:
            thread.start()
        self.work(last)
        if join_seconds is not None:
            self.limit(join_seconds)
        for part, thread in enumerate(threads):
            self.join(thread)
            if thread.is_alive():
                self.left_behind.append(self.names[part])
        if self.failures:
            raise self.failures[0]
        return [self.time(part) for part in range(last + 1)]

    def work(self, part: int) -> None:
        """Draws items out of one part and puts them into the channel behind it, if there is one."""
        began = time.perf_counter()
        target = self.channels[part] if part < len(self.channels) else None
        try:
            made = self.stages[part - 1](self.channels[part - 1]) if part else self.source
            # A generator is closed here, in its own thread, so that its `with` blocks end in it.
            with closing(made) if isinstance(made, Generator) else nullcontext():
                for item in made:
                    if target is not None:
                        target.put(item)
            if target is not None:
                target.end()
        except BaseException as error:
            self.fail(error)
        finally:
            self.seconds[part] = time.perf_counter() - began

    def fail(self, error: BaseException) -> None:
        with self.lock:
            if not isinstance(error, Cancelled):
                self.failures.append(error)
            if isinstance(error, KeyboardInterrupt):
                self.limit(INTERRUPTED_SECONDS)
        for channel in self.channels:
            channel.cancel()

    def limit(self, seconds: float) -> None:
        """From now on so long, at most, for the parts to end."""
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)

    def join(self, thread: threading.Thread) -> None:
        """Waits for a thread; a Ctrl-C that arrives meanwhile cancels what still runs."""
        while thread.is_alive():
            left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            if left == 0:
                return
            try:
                thread.join(left)
            except KeyboardInterrupt as error:
                self.fail(error)

    def time(self, part: int) -> StageTime:
        wait = self.channels[part - 1].get_wait_seconds if part else 0.0
        if part < len(self.channels):
            wait += self.channels[part].put_wait_seconds
        return StageTime(self.names[part], self.seconds[part] - wait, wait)


def any_left_behind() -> bool:
    """Whether a part of a run that was broken off is still at work."""
    return any(thread.name.startswith(THREAD_NAMES) for thread in threading.enumerate())


def stage_name(part: object) -> str:
    """``decode`` for a generator or function of that name."""
    part = getattr(part, "func", part)  # functools.partial
    return str(getattr(part, "__name__", type(part).__name__))

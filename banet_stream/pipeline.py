"""Stages that overlap: each a generator function (items in, items out) on a thread of its own.

End of stream is the end of a stage's ``for``; flushing is the code after it; cleanup is its ``with``.
The first error cancels every channel: blocked stages wake up with ``Cancelled``, close what they hold in
their own thread, all threads are joined, and the error is raised to the caller.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Items between two stages: enough to ride out an encoder's hiccup, few enough that 4K frames stay small.
CAPACITY = 8


class Cancelled(Exception):
    """Raised in a stage that waits on a channel when another stage has failed."""


class Channel(Generic[T]):
    """A bounded queue with one writer and one reader. ``put`` waits while it is full."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
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
                self._changed.wait_for(lambda: self._items or self._ended or self._cancelled)
                self.get_wait_seconds += time.perf_counter() - began
                if self._cancelled:
                    raise Cancelled
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

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


@dataclass(frozen=True)
class StageTime:
    """What a stage spent: ``busy_seconds`` working, the rest waiting for its neighbours."""

    name: str
    busy_seconds: float
    wait_seconds: float


Stage = Callable[[Iterable[Any]], Iterator[Any]]


def run(source: Iterable[Any], *stages: Stage, capacity: int = CAPACITY) -> list[StageTime]:
    """Runs ``source`` through ``stages`` until it ends; the last stage runs in the calling thread.

    Every stage but the last has a thread. KeyboardInterrupt therefore lands in the last stage, and is
    treated like any other error. Returns the time every stage spent; raises the first error.
    """
    names = [stage_name(part) for part in (source, *stages)]
    channels: list[Channel[Any]] = [Channel(capacity) for _ in stages]
    seconds = [0.0] * len(names)
    failures: list[BaseException] = []
    lock = threading.Lock()

    def fail(error: BaseException) -> None:
        with lock:
            if not isinstance(error, Cancelled):
                failures.append(error)
        for channel in channels:
            channel.cancel()

    def work(index: int, make: Callable[[], Iterable[Any]]) -> None:
        began = time.perf_counter()
        try:
            items = iter(make())
            # A generator is closed here, in its own thread, so that its `with` blocks end in it.
            with closing(items) if isinstance(items, Generator) else nullcontext():
                for item in items:
                    if index < len(channels):
                        channels[index].put(item)
            if index < len(channels):
                channels[index].end()
        except BaseException as error:
            fail(error)
        finally:
            seconds[index] = time.perf_counter() - began

    def bind(stage: Stage, channel: Channel[Any]) -> Callable[[], Iterable[Any]]:
        return lambda: stage(channel)

    makers: list[Callable[[], Iterable[Any]]] = [lambda: source]
    makers += [bind(stage, channel) for stage, channel in zip(stages, channels, strict=True)]
    threads = [
        threading.Thread(target=work, args=(i, make), name=f"banet-{names[i]}", daemon=True)
        for i, make in enumerate(makers[:-1])
    ]
    for thread in threads:
        thread.start()
    work(len(makers) - 1, makers[-1])
    _join(threads, fail)
    if failures:
        raise failures[0]
    waits = [channel.put_wait_seconds for channel in channels] + [0.0]
    waits = [w + (channels[i - 1].get_wait_seconds if i else 0.0) for i, w in enumerate(waits)]
    return [StageTime(n, s - w, w) for n, s, w in zip(names, seconds, waits, strict=True)]


def _join(threads: list[threading.Thread], fail: Callable[[BaseException], None]) -> None:
    """Waits for all; a Ctrl-C that arrives meanwhile cancels what still runs."""
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt as error:
                fail(error)


def stage_name(part: object) -> str:
    """``decode`` for a generator or function of that name."""
    part = getattr(part, "func", part)  # functools.partial
    return str(getattr(part, "__name__", type(part).__name__))

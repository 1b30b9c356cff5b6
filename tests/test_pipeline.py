from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from banet_stream import pipeline
from banet_stream.pipeline import CAPACITY, Cancelled, Channel, Run, Stage, StageTime


def run(source: Iterable[Any], *stages: Stage, capacity: int = CAPACITY) -> list[StageTime]:
    return Run(source, stages, [Channel(capacity) for _ in stages]).finish()


class Fault(Exception):
    pass


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background lets them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def count(limit: int, fail_at: int | None = None, closed: list[str] | None = None) -> Iterator[int]:
    try:
        for i in range(limit):
            if i == fail_at:
                raise Fault("source")
            yield i
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def double(items: Iterable[int]) -> Iterator[int]:
    for item in items:
        yield 2 * item


def worker_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("banet-")]


def test_order_and_flush() -> None:
    seen: list[int] = []

    def batch(items: Iterable[int]) -> Iterator[int]:
        held: list[int] = []
        for item in items:
            held.append(item)
            if len(held) == 3:
                yield from held
                held = []
        yield from held  # the flush

    def collect(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            seen.append(item)
            yield item

    times = run(count(100), double, batch, collect, capacity=2)
    assert seen == [2 * i for i in range(100)]
    assert [t.name for t in times] == ["count", "double", "batch", "collect"]
    assert all(t.busy_seconds >= 0 and t.wait_seconds >= 0 for t in times)
    assert not worker_threads()


def test_put_waits_while_full() -> None:
    produced: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            produced.append(i)
            yield i

    ahead: list[int] = []

    def slow(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.001)
            ahead.append(len(produced) - item)
            yield item

    run(source(), slow, capacity=3)
    assert max(ahead) <= 3 + 2  # in the channel, in the producer's hand, in the consumer's


@pytest.mark.parametrize("stage", range(4))
def test_an_error_anywhere_ends_everything(stage: int) -> None:
    """A hundred runs per stage, at random places: the error comes out, no thread stays, no hang."""
    generator = random.Random(stage)

    def failing(items: Iterable[int], at: int) -> Iterator[int]:
        for number, item in enumerate(items):
            if number == at:
                raise Fault("stage")
            yield item
        if at >= 20:
            raise Fault("flush")  # at the end, after the last item

    for _ in range(100):
        at = generator.randrange(25)
        closed: list[str] = []
        source = count(20, at if stage == 0 else None, closed)
        stages: list[pipeline.Stage] = [double] * 3
        if stage:
            stages[stage - 1] = lambda items, at=at: failing(items, at)
        if stage == 0 and at >= 20:
            run(source, *stages, capacity=2)
        else:
            with pytest.raises(Fault):
                run(source, *stages, capacity=2)
        assert not worker_threads()
        assert closed == ["banet-count"]  # its cleanup ran, in its own thread


def test_the_first_error_is_the_one_raised() -> None:
    def first(items: Iterable[int]) -> Iterator[int]:
        yield next(iter(items))
        raise Fault("first")

    def second(items: Iterable[int]) -> Iterator[int]:
        try:
            yield from items
        except Cancelled as error:
            raise ValueError("cleanup went wrong too") from error

    with pytest.raises(Fault, match="first"):
        run(count(100), first, second, capacity=1)


def test_keyboard_interrupt_lands_in_the_last_stage() -> None:
    def impatient(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if item == 6:
                signal.raise_signal(signal.SIGINT)
            yield item

    with pytest.raises(KeyboardInterrupt):
        run(count(1000), double, impatient)
    assert not worker_threads()


def test_interrupt_while_waiting_for_a_slow_stage() -> None:
    def slow(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.02)
            yield item

    def drain(items: Iterable[int]) -> Iterator[int]:
        yield from items

    timer = threading.Timer(0.1, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(count(100_000), slow, drain)
    timer.join()
    assert not worker_threads()


def test_channel_cancel_wakes_both_sides() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    woken: list[str] = []

    def put() -> None:
        try:
            channel.put(2)
        except Cancelled:
            woken.append("put")

    thread = threading.Thread(target=put)
    thread.start()
    time.sleep(0.02)
    channel.cancel()
    thread.join(5)
    assert woken == ["put"]
    with pytest.raises(Cancelled):
        next(iter(channel))


def test_a_stage_that_hangs_is_left_behind_when_asked() -> None:
    hung, release = threading.Event(), threading.Event()

    def hangs(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if item == 2:
                hung.set()
                release.wait(60)
            yield item

    def fails(items: Iterable[int]) -> Iterator[int]:
        yield next(iter(items))
        hung.wait(60)
        raise Fault("last")

    both = [Channel[int](1), Channel[int](1)]
    work = pipeline.Run(count(100), [hangs, fails], both)
    with pytest.raises(Fault):
        work.finish(join_seconds=0.2)
    assert work.left_behind == ["hangs"]
    release.set()
    for thread in worker_threads():
        thread.join(5)


def test_a_stage_that_hangs_is_left_behind_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "INTERRUPTED_SECONDS", 0.2)
    release = threading.Event()

    def hangs(items: Iterable[int]) -> Iterator[int]:
        yield next(iter(items))
        release.wait(60)

    def impatient(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            signal.raise_signal(signal.SIGINT)
            yield item

    work = pipeline.Run(count(100), [hangs, impatient], [Channel[int](1), Channel[int](1)])
    with pytest.raises(KeyboardInterrupt):
        work.finish()
    assert work.left_behind == ["hangs"]
    assert pipeline.any_left_behind()
    release.set()
    for thread in worker_threads():
        thread.join(5)


def test_stage_names() -> None:
    assert pipeline.stage_name(count(1)) == "count"
    assert pipeline.stage_name(double) == "double"

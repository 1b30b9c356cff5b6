"""The wiring of a live run: capture, matte or cover, publish; and the one who watches over them.

    capture ──► mailbox ──► matte, or cover ──► mailbox ──► publish ──► sink's own process
       │ reconnects          one picture: the newest           │ slate, reconnects

Each is a thread, and so is each connection to a source; the calling thread only watches. Nothing waits
without an end: what does not come back is left behind.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from . import backends, pipeline
from .background import Background, Transparent, open_background
from .capture import capture
from .codecs import CODECS, EncodeOptions, check_rate
from .compositing import matte_frame
from .contract import NEWER, Contract, Span
from .cover import COVERS, Cover, open_slate
from .errors import BackgroundError, OutputError, UsageError
from .kinds import Kind, Place, input_place, output_place
from .live_source import CaptureOptions, LiveFrame, LiveSource
from .locks import lock, locked_beside
from .matting import Matter, MatteStream
from .opening import local_path
from .output import refuse_to_overwrite
from .pipeline import Channel, Mailbox, StageTime
from .publish import GAPS, TICK_SECONDS, Publisher, PublishOptions, Pulse, publish
from .sound import Sound

log = logging.getLogger(__name__)

# oldest: a frame that still waits gives way to a newer one, so latency does not grow; never: frames wait.
DROPS = {"oldest": "newest frame wins (--drop oldest)", "never": "every frame waits its turn (--drop never)"}
# After a request to stop: so long for an end in order. With what follows it is less than 2 s.
STOP_SECONDS = 1.4
# Within it: for the stages before the publisher, after that one has ended.
JOIN_SECONDS = 0.3
# A duration counts from the opened sink, or from here when none was opened by then.
SINK_SECONDS = 20.0
LOOK_SECONDS, DRAW_SECONDS = 0.1, 0.03
# What is longer is a mistake, and beyond what clocks count.
LONGEST_WAIT_SECONDS = 86_400
# Of all that a frame goes through on the CPU: where these run, so does the rest.
FRAME_OPERATORS = ("frame_to_input", "fade_islands", "composite")
# The same reason for covering frames is said again after this long.
SAY_AGAIN_SECONDS = 60.0


@dataclass(frozen=True)
class LiveOptions:
    """How a live run is done.

    Args:
        realtime: INPUT is a recording, played at its own pace.
        duration_seconds: end so long after the sink was opened; None: never.
        drop: one of DROPS.
        cover: ``blur`` or ``slate``: what hides a frame that has no matte.
        slate: an image or colour, as ``--bg`` takes it; None draws one.
        light_wrap: 0 to 1, how much light of a background that is named falls on the subject's soft edge.
        save_power: the network rests while nothing moves.
        rtsp_transport: ``tcp`` or ``udp``.
        camera_size, camera_fps, camera_format: what to ask a webcam for; None leaves it to the webcam.
        stats_seconds: how often the contract is reported; None: only at the end.
        overwrite: replace an OUTPUT file.
    """

    capture: CaptureOptions = field(default_factory=CaptureOptions)
    publish: PublishOptions = field(default_factory=PublishOptions)
    realtime: bool = False
    duration_seconds: float | None = None
    drop: str = "oldest"
    cover: str = "blur"
    slate: str | None = None
    light_wrap: float = 0.0
    save_power: bool = False
    rtsp_transport: str = "tcp"
    camera_size: str | None = None
    camera_fps: float | None = None
    camera_format: str | None = None
    stats_seconds: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        choices = (
            ("drop", self.drop, tuple(DROPS)),
            ("cover", self.cover, COVERS),
            ("gap", self.publish.gap, GAPS),
            ("rtsp_transport", self.rtsp_transport, ("tcp", "udp")),
            ("camera_format", self.camera_format, (None, "mjpeg", "yuyv")),
        )
        for name, value, allowed in choices:
            if value not in allowed:
                words = ", ".join(str(a) for a in allowed if a)
                raise UsageError(f"LiveOptions: {name} must be one of {words}, got {value!r}")
        for name, seconds in self._waits():
            if not seconds <= LONGEST_WAIT_SECONDS:
                raise UsageError(f"--{name} {seconds:g}: must be at most a day, {LONGEST_WAIT_SECONDS} s")

    def _waits(self) -> Iterator[tuple[str, float]]:
        yield "timeout", self.capture.timeout_seconds
        yield "timeout", self.publish.sink.timeout_seconds
        for retry in (self.capture.retry, self.publish.retry):
            yield "retry-first", retry.first_seconds
            yield "retry-later", retry.later_seconds


@dataclass(frozen=True)
class LiveSummary:
    """What a live run did."""

    contract: Contract
    stages: list[StageTime]  # empty when the run had to be broken off
    operations: dict[str, float]  # seconds by operation inside the matte stage
    frames: int  # that the matte stage was given
    rested: int  # of these: the network rested (save_power)
    encoder: str
    engine: str
    broken_off: bool  # something did not end in time and was left behind: the process should end now


def process_live(
    source: str | Path,
    output: str | Path | None,
    *,
    background: str | Path | Background = "blur",
    matter: Matter | None = None,
    options: LiveOptions | None = None,
    stop: threading.Event | None = None,
    report: Callable[[Contract, Span], None] | None = None,
    watch: Callable[[LiveFrame], None] | None = None,
    each_look: Callable[[], None] | None = None,
) -> LiveSummary:
    """Processes live until the source ends, ``stop`` is set, or something can't be mended.

    Args:
        source, output: as the command takes them; ``output`` None: only ``watch`` sees the frames.
        background: as ``--bg`` takes it, or a Background.
        matter: None makes one with the defaults.
        report: called every ``stats_seconds`` with the contract and the span that just ended.
        watch: called with every frame that goes out, in the publishing thread; must be quick.
        each_look: called in the calling thread many times a second.

    Raises:
        BanetStreamError: InputError or OutputError when a place can't be opened, or is lost for good;
            BackgroundError when the background is transparent; DeviceError when BANET_BACKEND can't be had.
    """
    options, stop = options or LiveOptions(), stop or threading.Event()
    check_possible(options)
    contract = Contract(DROPS[options.drop])
    with ExitStack() as stack:
        behind = background
        if not isinstance(behind, Background):
            behind = open_background(behind, light_wrap=options.light_wrap)
            stack.callback(behind.close)
        if isinstance(behind, Transparent):
            raise BackgroundError(
                "--bg transparent: a live output can't be transparent; choose a colour, a picture or blur"
            )
        behind.suit(None)
        target = None if output is None else os.fspath(output)
        come_from, go_to = places(local_path(os.fspath(source)), target, options)
        if go_to.kind in (Kind.FILE, Kind.HLS):
            names = {"INPUT": come_from.url, "the background": behind.name, "the slate": options.slate or ""}
            refuse_to_overwrite(go_to.url, names)
        if go_to.kind is Kind.FILE:
            stack.enter_context(claimed(Path(go_to.url), overwrite=options.overwrite))
        if go_to.kind is Kind.HLS:
            stack.enter_context(locked_beside(Path(go_to.url)))
        live = LiveSource(come_from, options.capture, contract, stop)
        stream = MatteStream(matter or Matter(), save_power=options.save_power)
        cover = Cover(options.cover, open_slate(options.slate) if options.slate else None)
        pulse = Pulse()
        publisher = Publisher(
            go_to,
            options.publish,
            source=live,
            cover=cover,
            contract=contract,
            pulse=pulse,
            stop=stop,
            watch=watch,
        )
        stages = (
            partial(
                matte_or_cover, stream=stream, background=behind, cover=cover, contract=contract, pulse=pulse
            ),
            partial(publish, publisher=publisher),
        )
        run = LiveRun(capture(live), stages, channels(options.drop, contract), publisher, stop)
        run.watch_over(contract, options, report, each_look)
    return LiveSummary(
        contract=contract,
        stages=run.stages_done,
        operations=dict(stream.timings.seconds),
        frames=stream.frames,
        rested=stream.rested,
        encoder=publisher.encoder,
        engine=stream.description,
        broken_off=run.broken_off,
    )


def check_possible(options: LiveOptions) -> None:
    """Whether frames can be matted and encoded at all: what fails on each of them would hide them all.

    Raises:
        OutputError, DeviceError: naming what can't be had.
    """
    check_rate("h264", CODECS["h264"], EncodeOptions(crf=options.publish.sink.crf))
    for operator in FRAME_OPERATORS:
        backends.find(operator, torch.device("cpu"))


def places(source: str, output: str | None, options: LiveOptions) -> tuple[Place, Place]:
    come_from = input_place(
        source,
        rtsp_transport=options.rtsp_transport,
        camera_size=options.camera_size,
        camera_fps=options.camera_fps,
        camera_format=options.camera_format,
    )
    go_to = output_place(output, rtsp_transport=options.rtsp_transport, overwrite=options.overwrite)
    if come_from.url == go_to.url and go_to.kind is not Kind.NOWHERE:
        raise OutputError(f"{go_to.name}: is INPUT itself; choose another name")
    return come_from, go_to


@contextmanager
def claimed(path: Path, *, overwrite: bool = False) -> Iterator[None]:
    """OUTPUT is there and locked from now on, so that no other run begins it; if it is new and stays empty it
    goes again.

    Raises:
        OutputError: when it is there and not to be replaced, another run writes it, or it can't be made.
    """
    there = path.exists()
    if there and overwrite and not path.is_file():
        yield  # a pipe's two ends are its users' affair, and opening it would wait for the other
        return
    try:
        file = path.open("ab" if overwrite else "xb")
    except FileExistsError as error:
        raise OutputError(f"{path}: exists already; use --overwrite to replace it") from error
    except OSError as error:
        raise OutputError(f"{path}: can't be created ({error.strerror})") from error
    with file:
        lock(file, f"{path}: another run writes it; choose another name")
        try:
            yield
        finally:
            with suppress(OSError):
                if not there and not path.stat().st_size:
                    path.unlink()


def channels(drop: str, contract: Contract) -> list[Channel[LiveFrame | Sound]]:
    """What lies before the matte stage and before the publisher."""
    if drop == "never":
        return [Channel(pipeline.CAPACITY), Channel(pipeline.CAPACITY, tick_seconds=TICK_SECONDS)]

    def is_picture(item: LiveFrame | Sound) -> bool:
        return isinstance(item, LiveFrame)

    def dropped(item: LiveFrame | Sound) -> None:
        if isinstance(item, LiveFrame):
            contract.drop(NEWER)

    box = partial(Mailbox[LiveFrame | Sound], is_picture=is_picture, dropped=dropped)
    return [box(), box(tick_seconds=TICK_SECONDS)]


def matte_or_cover(
    items: Iterable[LiveFrame | Sound],
    stream: MatteStream,
    background: Background,
    cover: Cover,
    contract: Contract,
    pulse: Pulse,
) -> Generator[LiveFrame | Sound, None, None]:
    """Every frame with its subject before ``background``, or hidden: never as it came. The middle stage."""
    said: dict[str, float] = {}
    connection = 0
    for item in items:
        if isinstance(item, Sound):
            yield item
            continue
        if item.connection != connection:
            stream.reset()
            connection = item.connection
        pulse.captured_seconds = item.captured_seconds
        try:
            shown = matte_frame(item, stream, background)
        except Exception as error:  # whatever went wrong, the room must not show
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            stream.reset()
            contract.cover(type(error).__name__)
            if time.monotonic() - said.get(why, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
                said = {why: time.monotonic()}
                log.warning("no matte (%s): frames go out hidden", why)
            shown = cover.hide(item)
        pulse.captured_seconds = None
        yield shown


class LiveRun:
    """The pipeline in a thread of its own, so that the caller's is free for signals and statistics."""

    def __init__(
        self,
        source: Iterable[LiveFrame | Sound],
        stages: tuple[pipeline.Stage, ...],
        between: list[Channel[LiveFrame | Sound]],
        publisher: Publisher,
        stop: threading.Event,
    ) -> None:
        self.between, self.publisher, self.stop = between, publisher, stop
        self._run = pipeline.Run(source, stages, between)
        self.stages_done: list[StageTime] = []
        self.broken_off = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="banet-live", daemon=True)

    def watch_over(
        self,
        contract: Contract,
        options: LiveOptions,
        report: Callable[[Contract, Span], None] | None,
        each_look: Callable[[], None] | None,
    ) -> None:
        """Until the end; raises the error that ended the run."""
        started = reported = time.monotonic()
        began: float | None = None
        asked: float | None = None
        self._thread.start()
        try:
            while self._thread.is_alive():
                self._thread.join(DRAW_SECONDS if each_look else LOOK_SECONDS)
                now = time.monotonic()
                if each_look:
                    each_look()
                if began is None and (self.publisher.encoder or now - started > SINK_SECONDS):
                    began = now
                wanted = options.duration_seconds
                if wanted is not None and began is not None and now - began >= wanted:
                    self.stop.set()
                if self.stop.is_set():
                    asked = asked or now
                    if now - asked > STOP_SECONDS:
                        break
                if options.stats_seconds and report and now - reported >= options.stats_seconds:
                    reported = now
                    report(contract, contract.turn())
        finally:
            self.stop.set()
            contract.finish()
            if self._thread.is_alive():
                self._break_off()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self.stages_done = self._run.finish(join_seconds=JOIN_SECONDS)
        except BaseException as error:  # raised in the caller's thread
            self._error = error
        self.broken_off = bool(self._run.left_behind)

    def _break_off(self) -> None:
        """Leaves behind what does not end."""
        for channel in self.between:
            channel.cancel()
        self.publisher.kill()
        self._thread.join(LOOK_SECONDS)
        self.broken_off = self.broken_off or self._thread.is_alive()
        if self.broken_off:
            log.warning("a stage did not end in time and is left behind")

"""The wiring: a whole file from source to sink, and an iterator for loops of one's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import ops, pipeline
from .background import Background, Transparent, open_background
from .codecs import EncodeOptions
from .compositing import compose
from .decode import Source, decode
from .encode import Sink, encode
from .errors import IncompleteInput, InputError, Interrupted, OutputError, PromiseBroken, UsageError
from .frame import Frame, Packet, rgb_of
from .matting import Matter, MatteStream, matte
from .open_output import open_output
from .opening import STANDARD, can_be_read_again, is_url, local_path
from .output import Output, refuse_to_overwrite
from .photo import Photo, open_photo
from .pipeline import StageTime
from .resume import ResumableSink, decode_rest, first_frame, run_facts
from .verify import CoreSamples, Verification
from .verify import verify as verify_files


@dataclass(frozen=True)
class Progress:
    """Handed to the callback after every frame."""

    frames: int
    expected_frames: int  # 0: the source doesn't say
    seconds: float  # since the start
    resumed_frames: int = 0  # of an earlier run

    @property
    def fps(self) -> float:
        """Frames per second so far."""
        return (self.frames - self.resumed_frames) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    output: Path
    frames: int
    seconds: float
    stages: list[StageTime]
    operations: dict[str, float]  # seconds by operation inside the stages in OPERATIONS
    encoder: str
    engine: str
    notices: list[str] = field(default_factory=list)
    verification: Verification | None = None
    resumed_frames: int = 0  # of an earlier run

    @property
    def fps(self) -> float:
        """Frames per second, end to end."""
        return (self.frames - self.resumed_frames) / self.seconds

    def as_dict(self) -> dict[str, object]:
        """All of it in what JSON knows; ``verified`` is null where nothing was compared."""
        facts = asdict(self) | {"output": str(self.output), "fps": self.fps}
        findings = facts.pop("verification")
        kept = None if self.verification is None else not self.verification.broken
        return facts | {"verified": kept, "findings": findings["findings"] if findings else []}


# Frames that wait before matting, compositing and encoding. Compositing takes about as long for one frame as
# for another.
STOCKS = (pipeline.CAPACITY, 2, pipeline.CAPACITY)
# What the stages do that is timed by itself.
OPERATIONS = {"matte": ("to input", "network"), "compose": ("mend", "background", "composite", "alpha")}


def stats_table(summary: Summary) -> str:
    """Milliseconds per frame of every stage. Stages overlap: the slowest one sets the pace."""
    rows = [f"{'stage':<14}{'busy ms/frame':>14}{'waiting ms/frame':>18}"]
    per_frame = 1000 / max(1, summary.frames - summary.resumed_frames)
    for stage in summary.stages:
        busy, waiting = stage.busy_seconds * per_frame, stage.wait_seconds * per_frame
        rows.append(f"{stage.name:<14}{busy:>14.2f}{waiting:>18.2f}")
        for name in OPERATIONS.get(stage.name, ()):
            if name in summary.operations:
                rows.append(f"  {name:<12}{summary.operations[name] * per_frame:>14.2f}")
    rows.append(f"{'end to end':<14}{summary.seconds * per_frame:>14.2f}")
    rows.append(f"matte: {summary.engine}; encoder: {summary.encoder}")
    return "\n".join(rows)


def process(
    source: str | Path,
    output: str | Path,
    *,
    background: str | Path | Background = "blur",
    light_wrap: float = 0.0,
    matter: Matter | None = None,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    audio: bool = True,
    deinterlace: str = "auto",
    encoding: EncodeOptions | None = None,
    alpha_out: str | Path | None = None,
    resume: bool = False,
    verify: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Reads a video, puts its people before another background and writes the result.

    Args:
        source: file, photo, URL or ``-``. output: file, whose extension chooses the container; numbered
            pictures (``out/%06d.png``); or ``-``, y4m on standard output.
        background: as ``--bg`` takes it, or a Background.
        light_wrap: 0 to 1, how much light of a background that is named falls on the subject's soft edge.
        matter: None makes one with the defaults.
        start_seconds, duration_seconds: the part to process.
        audio: False leaves the sound out.
        deinterlace: ``auto`` (where the source is marked so), ``on`` or ``off``.
        encoding: codec, quality, overwriting.
        alpha_out: file for the matte by itself.
        resume: works in segments kept in ``OUTPUT.resume`` and, after a crash, goes on from them.
        verify: reads source and output again and compares them; ``Summary.verification``.
        announce: called with what is to be said before the work begins, as the size of a large output.
        progress: called after every frame, in the calling thread.
        stop: once set, the source ends where it is.

    Raises:
        BanetStreamError: one of ``errors``, and OUTPUT is not there; but for IncompleteInput (the source was
            cut off: OUTPUT holds what could be read), PromiseBroken (verify: OUTPUT is there) and Interrupted
            (the part file is named).
    """
    encoding = encoding or EncodeOptions()
    with ExitStack() as stack:
        video = open_source(
            source,
            start_seconds=start_seconds,
            duration_seconds=duration_seconds,
            audio=audio,
            deinterlace=deinterlace,
            resume=resume,
            stop=stop,
        )
        stack.callback(video.close)
        behind = background
        if not isinstance(behind, Background):
            behind = open_background(behind, light_wrap=light_wrap)
            stack.callback(behind.close)  # the caller's own stays the caller's
        behind.suit(video.profile if isinstance(video, Photo) else None)
        matter = matter or Matter()
        facts = None
        if resume and isinstance(video, Source):
            facts = run_facts(video, background, behind.light_wrap, matter.description, encoding)
        sink = open_output(
            output,
            video,
            encoding,
            alpha=isinstance(behind, Transparent),
            alpha_out=alpha_out,
            resume_facts=facts,
        )
        stack.callback(sink.close)
        sink.announce = announce or sink.announce
        for path in (output, alpha_out):
            refuse_to_overwrite(path, {"INPUT": video.name, "the background": behind.name})
        stream = matter.stream(mirrored=True if isinstance(video, Photo) else None)
        if verify:
            check_verifiable(video, sink)
        samples = CoreSamples(sink.resumed_frames) if verify else None

        items = decode(video) if isinstance(video, Source) else video.decode()
        if isinstance(sink, ResumableSink):
            items = prepare_resumed(items, sink, behind, stream)
        began = time.perf_counter()

        def report(_: Frame) -> None:
            if progress:
                seconds = time.perf_counter() - began
                progress(Progress(sink.frames, video.expected_frames, seconds, sink.resumed_frames))

        run = pipeline.Run(
            items,
            (
                partial(matte, stream=stream),
                partial(
                    compose,
                    background=behind,
                    timings=stream.timings,
                    keep_alpha=alpha_out is not None,
                    watch=samples.watch if samples else None,
                ),
                partial(encode, sink=sink, progress=report),
            ),
            [pipeline.Channel(places) for places in STOCKS],
        )
        try:
            stages = finish_stages(run, sink, video.stop)
        finally:
            if run.left_behind:  # FFmpeg crashes where what it still reads is closed
                stack.pop_all()
                sink.close()
        sink.finish()
        summary = Summary(
            output=sink.path,
            frames=sink.frames,
            seconds=time.perf_counter() - began,
            stages=stages,
            operations=stream.timings.seconds,
            encoder=sink.encoder,
            engine=stream.description,
            notices=[*video.notices, *sink.notices],
            resumed_frames=sink.resumed_frames,
        )
        if samples:
            assert isinstance(video, Source)
            summary = verified(summary, video, samples, encoding)
        if video.loss:
            raise IncompleteInput(f"{video.loss}; {sink.path} holds {sink.frames} frames", summary)
        if summary.verification and summary.verification.broken:
            raise PromiseBroken(describe_broken(summary), summary)
    return summary


def finish_stages(run: pipeline.Run, sink: Output, stop: threading.Event) -> list[StageTime]:
    """Runs the stages to their end.

    Raises:
        Interrupted: by Ctrl-C, or by ``stop``.
    """
    try:
        stages = run.finish()
    except KeyboardInterrupt as error:
        raise Interrupted(describe_interruption(sink)) from error
    if stop.is_set():
        raise Interrupted(describe_interruption(sink))
    return stages


def check_verifiable(video: Source | Photo, sink: Output) -> None:
    """Before the work begins.

    Raises:
        InputError, OutputError: when one of them can't be read again.
    """
    if not can_be_read_again(video.name):
        raise InputError(f"{video.name}: --verify needs a file, which it can read again")
    if not isinstance(getattr(sink, "main", sink), Sink):
        raise OutputError(f"--verify: {sink.path} is no video file, which it could read again")


def verified(summary: Summary, video: Source, samples: CoreSamples, encoding: EncodeOptions) -> Summary:
    """With what is found where both files are read again."""
    usual = encoding.crf is None and encoding.bit_rate is None
    with closing(video.reopened()) as again:
        return replace(
            summary, verification=verify_files(again, summary.output, samples, usual_quality=usual)
        )


def describe_broken(summary: Summary) -> str:
    assert summary.verification is not None
    broken = [f"{f.name}: {f.source} became {f.output}" for f in summary.verification.broken]
    return f"{summary.output}: is there, but not as promised: {'; '.join(broken)}"


def open_source(
    name: str | Path,
    *,
    start_seconds: float,
    duration_seconds: float | None,
    audio: bool,
    deinterlace: str,
    resume: bool,
    stop: threading.Event | None,
) -> Source | Photo:
    """A photo where the file is one, else a video.

    Raises:
        InputError: when it is neither. UsageError: for what only videos have, of a photo.
    """
    name = local_path(str(name))
    photo = None if name == STANDARD or is_url(name) else open_photo(name)
    if photo is not None:
        asked = {
            "--start": start_seconds > 0,
            "--duration": duration_seconds is not None,
            "--deinterlace": deinterlace != "auto",
            "--resume": resume,
        }
        refused = [word for word, is_asked in asked.items() if is_asked]
        if refused:
            photo.close()
            raise UsageError(f"{', '.join(refused)}: only for videos, and {name} is a photo")
        photo.stop = stop or photo.stop
        return photo
    return Source(
        name,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        audio=audio,
        deinterlace=deinterlace,
        stop=stop,
    )


def prepare_resumed(
    items: Iterator[Frame | Packet], sink: ResumableSink, background: Background, stream: MatteStream
) -> Iterator[Frame | Packet]:
    """Lays out the sink by the run's first frame, and leaves out the frames that an earlier run finished."""
    assert isinstance(sink.source, Source)
    first = first_frame(sink.source)
    background.begin(first)
    sink.open(first)
    sink.opened = True
    return decode_rest(items, sink.done_pts, stream)


def describe_interruption(sink: Output) -> str:
    if sink.part is None and sink.frames:
        return f"interrupted after {sink.frames} frames"
    if sink.part is None:
        return "interrupted before the first frame was written"
    if isinstance(sink, ResumableSink):
        return f"interrupted; {sink.frames} frames are in {sink.part}, from where the same command goes on"
    return f"interrupted; the {sink.frames} frames done so far are in {sink.part}"


@dataclass(frozen=True)
class Matte:
    """One frame of ``iter_mattes``: when, what, and how much of it is person."""

    pts_seconds: float
    rgb: NDArray[np.uint8]  # [H, W, 3], upright
    alpha: NDArray[np.float32]  # [H, W] in 0..1


def iter_mattes(source: str | Path, *, matter: Matter | None = None) -> Iterator[Matte]:
    """The frames of a video with their mattes, for loops of one's own.

    Raises:
        InputError: when the source can't be opened. IncompleteInput: after the last frame, when it was cut
            off or is damaged.
    """
    stream = (matter or Matter()).stream()
    with closing(Source(source, audio=False)) as video:
        for frame in decode(video):
            if isinstance(frame, Frame):
                small = stream.network_alpha(frame).cpu()
                alpha = ops.upsample_alpha(small, frame.planes[0], depth=frame.format.depth).numpy()
                upright = np.ascontiguousarray(np.rot90(alpha, frame.rotation // 90))
                yield Matte(frame.pts_seconds, rgb_of(frame), upright)
        if video.loss:
            raise IncompleteInput(video.loss)

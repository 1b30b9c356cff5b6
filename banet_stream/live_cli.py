"""The command's live side: its options, its reports and its end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from .backoff import Retry
from .contract import Contract, Span, table
from .cover import COVERS
from .errors import UsageError
from .live import DROPS, LiveOptions, LiveSummary, process_live
from .live_source import CaptureOptions
from .matting import Matter
from .preview import Preview, open_preview
from .publish import GAPS, PublishOptions
from .sinks import SinkOptions

# Options of files that make no sense live, and what they are when they are not given.
FILE_ONLY = {
    "start": 0.0,
    "alpha_out": None,
    "resume": False,
    "verify": False,
    "json": False,
    "encoder": "auto",
    "deinterlace": "auto",
}
LIVE_GROUP = "live"


def add_live_options(parser: argparse.ArgumentParser, positive: Callable[[str], float]) -> None:
    """The options of live runs; ``positive`` parses a time."""
    group = parser.add_argument_group(LIVE_GROUP)
    add = group.add_argument
    retry, capture, publish = Retry(), CaptureOptions(), PublishOptions()
    add("--realtime", action="store_true", help="play a recorded INPUT at its own pace, as if it came live")
    add("--preview", action="store_true", help="show the result in a window; then OUTPUT may be left out")
    add(
        "--drop",
        choices=tuple(DROPS),
        default="oldest",
        help="when frames come faster than they go: oldest (the newest frame wins) or never (latency grows); "
        "default: oldest",
    )
    add(
        "--deadline",
        metavar="SECONDS",
        type=positive,
        default=publish.deadline_seconds,
        help=f"a frame later than this is hidden; default: {publish.deadline_seconds:g}",
    )
    add(
        "--cover",
        choices=COVERS,
        default="blur",
        help="what hides a frame that has no matte: blur or slate; default: blur",
    )
    add(
        "--gap",
        choices=GAPS,
        default=publish.gap,
        help=f"what is shown while the source is away: slate or last (frame); default: {publish.gap}",
    )
    add("--slate", metavar="IMAGE", help="an image or colour for the slate; default: a card that says so")
    add("--save-power", action="store_true", help="let the network rest while nothing moves")
    add("--rtsp-transport", choices=("tcp", "udp"), default="tcp", help="tcp or udp; default: tcp")
    add(
        "--timeout",
        metavar="SECONDS",
        type=positive,
        default=capture.timeout_seconds,
        help=f"give a silent source or sink up after this; default: {capture.timeout_seconds:g}",
    )
    add(
        "--retry-first",
        metavar="SECONDS",
        type=positive,
        default=retry.first_seconds,
        help=f"wait before connecting again; doubled each time; default: {retry.first_seconds:g}",
    )
    add(
        "--retry-later",
        metavar="SECONDS",
        type=positive,
        default=retry.later_seconds,
        help=f"the longest such wait; default: {retry.later_seconds:g}",
    )
    add(
        "--retries",
        metavar="N",
        type=int,
        default=retry.attempts,
        help="attempts in a row before giving up; default: 0, never",
    )
    add("--camera-size", metavar="WxH", help="ask the webcam for this size; default: its own")
    add("--camera-fps", metavar="FPS", type=positive, help="ask the webcam for this rate; default: its own")
    add(
        "--camera-format",
        choices=("mjpeg", "yuyv"),
        help="ask the webcam for mjpeg or yuyv; default: its own",
    )
    add(
        "--stats-every",
        metavar="SECONDS",
        type=positive,
        default=10.0,
        help="with --stats: print the contract of a live run this often; default: 10",
    )


def refuse_live_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """For a run from file to file.

    Raises:
        UsageError: naming an option that only live runs have.
    """
    group = next(g for g in parser._action_groups if g.title == LIVE_GROUP)
    for action in group._group_actions:
        if getattr(options, action.dest) != action.default:
            word = action.option_strings[0]
            raise UsageError(f"{word}: only for live runs; --realtime makes one of a recorded INPUT")


def live_options(options: argparse.Namespace) -> LiveOptions:
    """What the command line says.

    Raises:
        UsageError: for options that only files have.
    """
    for name, default in FILE_ONLY.items():
        if getattr(options, name) != default:
            raise UsageError(f"--{name.replace('_', '-')}: only for files, not for live runs")
    if options.codec not in (None, "h264"):
        raise UsageError(f"--codec {options.codec}: live output is h264")
    if options.retries < 0:
        raise UsageError(f"--retries {options.retries}: must be 0 (never give up) or more")
    retry = Retry(options.retry_first, options.retry_later, options.retries)
    sink = SinkOptions(options.crf, options.bitrate, options.timeout)
    return LiveOptions(
        capture=CaptureOptions(options.timeout, retry, not options.no_audio),
        publish=PublishOptions(sink, retry, options.deadline, options.gap),
        realtime=options.realtime,
        duration_seconds=options.duration,
        drop=options.drop,
        cover=options.cover,
        slate=options.slate,
        light_wrap=options.light_wrap,
        save_power=options.save_power,
        rtsp_transport=options.rtsp_transport,
        camera_size=options.camera_size,
        camera_fps=options.camera_fps,
        camera_format=options.camera_format,
        stats_seconds=options.stats_every if options.stats else None,
        overwrite=options.overwrite,
    )


def run_live(options: argparse.Namespace, matter: Matter, stop: threading.Event) -> None:
    """The main command, live; ends the process itself where the command line is all of it."""
    chosen = live_options(options)

    def report(contract: Contract, recent: Span) -> None:
        say(table(contract, recent), sys.stderr)

    with preview(options.preview, stop) as window:
        summary = process_live(
            options.input,
            options.output,
            background=options.bg,
            matter=matter,
            options=chosen,
            stop=stop,
            report=None if options.quiet else report,
            watch=window.watch if window else None,
            each_look=window.draw if window else None,
        )
    if not options.quiet:
        say(live_report(summary, options.stats), sys.stdout)
    if options.own_process or summary.broken_off:
        # Taking PyTorch down takes seconds on a busy machine, and the end was asked for within two. A thread
        # left behind in FFmpeg or PyTorch would even crash there. Everything is closed by now.
        logging.shutdown()
        os._exit(0)


def say(text: str, target: TextIO | None) -> None:
    """Prints, if there is anyone to read it: a run does not fail for want of that."""
    if target is None:  # closed before we began
        return
    with contextlib.suppress(OSError):
        print(text, file=target, flush=True)


@contextmanager
def preview(wanted: bool, stop: threading.Event) -> Iterator[Preview | None]:
    """The window, if one is wanted; closing it ends the run."""
    if not wanted:
        yield None
        return
    window = open_preview(stop)
    try:
        yield window
    finally:
        window.close()


def live_report(summary: LiveSummary, stats: bool) -> str:
    """The contract, and with ``stats`` what the stages took."""
    lines = [table(summary.contract)]
    if stats and summary.stages and summary.frames:
        per_frame = 1000 / summary.frames
        lines += [f"  {name:<20}{s * per_frame:>8.2f} ms/frame" for name, s in summary.operations.items()]
        if summary.rested:
            lines.append(f"the network rested for {summary.rested} of {summary.frames} frames")
    lines.append(f"matte: {summary.engine}; encoder: {summary.encoder or 'none'}")
    return "\n".join(lines)

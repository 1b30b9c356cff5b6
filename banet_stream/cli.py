"""The command line: parses, calls, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from PIL import Image
from tqdm import tqdm

from . import __version__, bench, doctor, fields
from .background import CHOICES
from .codecs import CODECS, CONTAINERS, EncodeOptions
from .demo import command as demo
from .errors import BanetStreamError, IncompleteInput, Interrupted, PromiseBroken, UsageError
from .hardware import ENCODERS
from .kinds import is_live
from .live_cli import add_live_options, refuse_live_options, run_live
from .matter_options import add_matter_options, make_matter
from .opening import STANDARD
from .photo import PICTURES
from .pipeline import any_left_behind
from .printing import ending_unread, go_on_without_output
from .redact import RedactingFormatter, RedactingParser, redact
from .stream import Progress, Summary, process, stats_table
from .verify import as_table

DESCRIPTION = """\
Takes people out of their background in video and puts any background behind them.

  banet-stream input.mp4 -o out.mp4 --bg office.png
  banet-stream rtsp://camera/stream -o rtsp://server/live --bg office.png
  banet-stream doctor             what runs here: versions, device, decoder, encoder, engine
  banet-stream bench CLIP         how fast it is here, stage by stage; --help after it
  banet-stream demo               a page in the browser; --help after it
"""
EPILOG = """\
A first word that is a command (doctor, bench, demo) is taken as one; a file of that name is ./doctor.
Exit codes: 0 done; 1 refused; 2 usage; 3 input; 4 background; 5 output; 6 device; 7 weights; 8 matte;
9 the input was cut off or damaged, and OUTPUT holds the rest; 10 --verify found a promise broken;
130 interrupted.
"""
INPUT_HELP = (
    "video, photo, URL or - (standard input); live: rtsp://, rtmp://, ...m3u8, webcam, 0, /dev/videoN"
)
OUTPUT_HELP = (
    f"file to write: {', '.join(CONTAINERS)}; pictures: out/%%06d.png; - for y4m to standard output; of a "
    f"photo: {', '.join(PICTURES)}; live: rtsp://, rtmp://, FOLDER/ or .m3u8 (HLS), .mp4, .mkv, .ts, "
    "/dev/videoN or virtual-camera"
)
# First words that are no INPUT.
COMMANDS = {"doctor": doctor.main, "bench": bench.main, "demo": demo.main}
# Plain progress lines, where there is no terminal, come this often.
PLAIN_PROGRESS_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``banet-stream``; leaves through ``SystemExit``."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if sys.stderr is None:  # closed by who started us: the work is done, nobody is told
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        if words and words[0] in COMMANDS:
            sys.exit(run_command(words))
        main_command(words, own_process=arguments is None)
    except KeyboardInterrupt:  # before there was anything to keep
        print("banet-stream: interrupted", file=sys.stderr)
        sys.exit(Interrupted.exit_code)


def run_command(words: Sequence[str]) -> int:
    """One of COMMANDS; returns its exit code."""
    with ending_unread():
        return COMMANDS[words[0]](words[1:])


def main_command(words: Sequence[str], *, own_process: bool) -> None:
    """Parses, runs, and says what went wrong."""
    parser = build_parser()
    options = parser.parse_args(words)
    if options.output is None and not options.preview:
        parser.error("the following arguments are required: -o/--output")
    options.own_process = own_process
    log_to_stderr(options)
    try:
        run(options)
    except BanetStreamError as error:
        if options.verbose:
            logging.exception("traceback, because of -v")
        if isinstance(error, (IncompleteInput, PromiseBroken)) and error.summary:
            report(error.summary, options)
        print(f"banet-stream: {redact(str(error))}", file=sys.stderr, flush=True)
        if own_process and any_left_behind():  # in FFmpeg, perhaps for ever; Python's end may crash there
            logging.shutdown()
            os._exit(error.exit_code)
        sys.exit(error.exit_code)


def log_to_stderr(options: argparse.Namespace) -> None:
    """Warnings, or with -v all; never a password."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(message)s"))
    level = logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler])
    if not options.verbose:  # what Pillow says of damaged pictures beside its errors
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
        for kind in (UserWarning, Image.DecompressionBombWarning):
            warnings.filterwarnings("ignore", category=kind, module="PIL")


def build_parser() -> argparse.ArgumentParser:
    """All options of the main command."""
    parser = RedactingParser(
        prog="banet-stream",
        usage="banet-stream INPUT -o OUTPUT [--bg BACKGROUND] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", metavar="INPUT", help=INPUT_HELP)
    add("-o", "--output", metavar="OUTPUT", help=OUTPUT_HELP)
    add("--bg", metavar="BACKGROUND", default="blur", help=f"{CHOICES}; default: blur")
    add(
        "--light-wrap",
        metavar="0..1",
        type=float,
        default=0.0,
        help="how much of BACKGROUND's light falls on the subject's soft edge; default: 0",
    )
    add("--alpha-out", metavar="FILE", help="write the matte too, as grey video or pictures")
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    add("--start", metavar="TIME", type=seconds, default=0.0, help="begin here: seconds or [HH:]MM:SS")
    add("--duration", metavar="TIME", type=seconds, help="process this much")
    add("--no-audio", action="store_true", help="leave the sound out")
    add(
        "--deinterlace", choices=fields.CHOICES, default="auto", help="default: auto, where marked interlaced"
    )
    group = parser.add_argument_group("quality and speed")
    add = group.add_argument
    add_matter_options(group)
    add("--codec", help=f"{', '.join(CODECS)}; default: the container's usual one")
    add("--encoder", choices=ENCODERS, default="auto", help="default: auto, hardware where it works")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--crf", type=int, help="constant quality, lower is better; default: by codec")
    rate.add_argument(
        "--bitrate", metavar="RATE", type=bits_per_second, help="bits per second, as in 4M or 800k"
    )
    add_live_options(parser, positive_seconds)
    group = parser.add_argument_group("messages")
    add = group.add_argument
    add("--stats", action="store_true", help="print frames per second and the time of every stage")
    add("--resume", action="store_true", help="go on where a crashed or killed run of this command stopped")
    add("--verify", action="store_true", help="read INPUT and OUTPUT again and compare what was promised")
    add("--json", action="store_true", help="what was done and found, as JSON on standard output")
    add("--quiet", "-q", action="store_true", help="errors only")
    add("--verbose", "-v", action="store_true", help="details, and tracebacks of errors")
    add("--version", action="version", version=f"banet-stream {__version__}")
    return parser


def run(options: argparse.Namespace) -> None:
    """The main command."""
    if options.duration is not None and options.duration <= 0:
        raise UsageError("--duration: must be more than nothing")
    matter = make_matter(options)
    stop = threading.Event()
    if is_live(options.input, options.output, realtime=options.realtime or options.preview):
        with interrupts(stop):
            run_live(options, matter, stop)
        return
    refuse_live_options(build_parser(), options)
    with progress_display(options.quiet) as show, interrupts(stop):
        summary = process(
            options.input,
            options.output,
            background=options.bg,
            light_wrap=options.light_wrap,
            matter=matter,
            start_seconds=options.start,
            duration_seconds=options.duration,
            audio=not options.no_audio,
            deinterlace=options.deinterlace,
            encoding=encode_options(options),
            alpha_out=options.alpha_out,
            resume=options.resume,
            verify=options.verify,
            announce=None if options.quiet else announce,
            progress=show,
            stop=stop,
        )
    report(summary, options)


def encode_options(options: argparse.Namespace) -> EncodeOptions:
    return EncodeOptions(
        options.codec, options.crf, options.bitrate, options.overwrite, encoder=options.encoder
    )


def announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_display(quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar with fps and time left on a terminal, a plain line now and then elsewhere."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with tqdm(unit=" frames", dynamic_ncols=True, file=sys.stderr) as bar:

            def advance(now: Progress) -> None:
                bar.total = now.expected_frames or None
                if not bar.n:  # those of an earlier run took no time of this one
                    bar.initial = bar.n = bar.last_print_n = now.resumed_frames
                bar.update(now.frames - bar.n)

            yield advance
    else:
        printed = time.monotonic()

        def line(now: Progress) -> None:
            nonlocal printed
            if time.monotonic() - printed < PLAIN_PROGRESS_SECONDS:
                return
            printed = time.monotonic()
            total = f" of {now.expected_frames}" if now.expected_frames >= now.frames else ""
            print(
                f"{now.frames}{total} frames, {now.fps:.1f} fps{time_left(now)}", file=sys.stderr, flush=True
            )

        yield line


def time_left(now: Progress) -> str:
    if now.expected_frames < now.frames or not now.fps:
        return ""
    return f", {(now.expected_frames - now.frames) / now.fps:.0f} s left"


@contextmanager
def interrupts(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the source, so that what is done is flushed; the second breaks off."""
    watched = (signal.SIGINT, signal.SIGTERM)

    def first(_: int, __: FrameType | None) -> None:
        stop.set()
        for number in watched:
            signal.signal(number, signal.default_int_handler)
        print("\nstopping; once more to break off", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = [signal.signal(number, first) for number in watched]
    try:
        yield
    finally:
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)


def report(summary: Summary, options: argparse.Namespace) -> None:
    """What was done, on standard output; notices of what could not be kept, on standard error."""
    if options.quiet and not options.json:
        return
    for notice in summary.notices:
        print(f"note: {notice}", file=sys.stderr)
    # Where frames went to standard output, words go elsewhere.
    target = sys.stderr if str(summary.output) == STANDARD else sys.stdout
    try:
        print(as_json(summary) if options.json else in_words(summary, options), file=target, flush=True)
    except OSError as error:  # the work is done all the same
        go_on_without_output(error)


def as_json(summary: Summary) -> str:
    return json.dumps(summary.as_dict(), indent=1)


def in_words(summary: Summary, options: argparse.Namespace) -> str:
    frames = f"{summary.frames} frame{'s' * (summary.frames != 1)}"
    lines = [f"{summary.output}: {frames} in {summary.seconds:.1f} s, {summary.fps:.1f} fps"]
    if options.stats:
        lines.append(stats_table(summary))
    if summary.verification:
        lines.append(as_table(summary.verification))
    return "\n".join(lines)


def seconds(text: str) -> float:
    """``90``, ``1:30`` or ``0:01:30.5``."""
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if not 1 <= len(values) <= 3 or not all(0 <= v < float("inf") for v in values):
        raise argparse.ArgumentTypeError(f"{text!r}: a time is seconds or [HH:]MM:SS, and not negative")
    total = 0.0
    for value in values:
        total = total * 60 + value
    return total


def positive_seconds(text: str) -> float:
    """A number above nothing."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r}: must be more than nothing")
    return value


def bits_per_second(text: str) -> int:
    """``4M``, ``800k`` or ``5000000``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    rate = float(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()] if match else 0.0
    if rate < 1000:
        raise argparse.ArgumentTypeError(
            f"{text!r}: a rate is bits per second, as in 4M or 800k, and at least 1k"
        )
    return round(rate)

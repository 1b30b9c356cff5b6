"""Opening sources, with every failure said in words, and what a container says of itself."""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import av
from av.error import ExitError, FFmpegError, InvalidDataError, PatchWelcomeError
from av.stream import Stream

from . import chroma
from .errors import InputError, Interrupted
from .frame import STRANGE_MATRICES, VideoInfo

STANDARD = "-"  # in place of a file's name: standard input
# av.open can wait for ever on a silent server.
OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS = 10.0, 10.0
# How often who waits for a pipe looks at the request to stop.
LOOK_SECONDS = 0.1
# What FFmpeg says of data that is damaged: that it can't be, or is of a kind nobody ever sent.
DAMAGED_DATA = (InvalidDataError, PatchWelcomeError)
COVER = av.stream.Disposition.attached_pic


def open_input(name: str, stop: threading.Event | None = None) -> av.container.InputContainer:
    """``av.open`` for reading, with every failure said in words.

    Raises:
        InputError: with the reason. Interrupted: ``stop`` was set while a pipe gave nothing.
    """
    if name == STANDARD:
        check_standard_input()
    elif not is_url(name):
        check_file(name)
    target = "pipe:0" if name == STANDARD else name if is_url(name) else f"file:{name}"
    try:
        if not can_be_read_again(name):
            return open_pipe(name, target, stop)
        return av.open(target, timeout=(OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS))
    except InvalidDataError as error:
        raise InputError(
            f"{name}: not a video, or cut off before its index (FFmpeg can't read it: {error.strerror})"
        ) from error
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{name}: can't be opened ({reason(error)})") from error


def open_pipe(name: str, target: str, stop: threading.Event | None) -> av.container.InputContainer:
    """``av.open`` in a thread of its own, without a limit: who writes into a pipe may take his time.

    FFmpeg waits for him where no signal reaches Python, which would not notice Ctrl-C.
    """
    results: queue.SimpleQueue[av.container.InputContainer | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put(av.open(target))
        except Exception as error:  # told to who waits
            results.put(error)

    threading.Thread(target=work, name=f"opens {name}", daemon=True).start()
    while True:
        with suppress(queue.Empty):
            result = results.get(timeout=LOOK_SECONDS)
            break
        if stop is not None and stop.is_set():
            raise Interrupted(f"interrupted while waiting for {name}")
    if isinstance(result, Exception):
        raise result
    return result


def check_standard_input() -> None:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("-: standard input is closed")
    if sys.stdin.isatty():
        raise InputError("-: standard input is a terminal; pipe a video into it")


def check_file(name: str) -> None:
    if not name:
        raise InputError("INPUT: the name is empty")
    path = Path(name)
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a directory, not a video")
        if not path.exists():
            raise InputError(f"{name}: no such file")
        if path.is_file():  # a pipe would miss what is read of it here
            with path.open("rb") as file:
                if not file.read(1):
                    raise InputError(f"{name}: the file is empty")
    except OSError as error:
        raise InputError(f"{name}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{name!r}: not a file name ({error})") from error


def can_be_read_again(name: str) -> bool:
    """Whether it is no pipe, which is read once."""
    return name != STANDARD and (is_url(name) or Path(name).is_file())


def local_path(name: str) -> str:
    """The path that a ``file:`` URL (RFC 8089) means; all other names as they are."""
    scheme, separator, rest = name.partition("://")
    host, slash, path = rest.partition("/")
    if not separator or scheme.lower() != "file" or not slash or host.lower() not in ("", "localhost"):
        return name
    return unquote(slash + path)


def is_url(name: str) -> bool:
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.isalnum()


def picture_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Video streams, without the cover art of a sound file, which is one of a single picture."""
    return [s for s in container.streams.video if not s.disposition & COVER]


def check_matrix(name: str, stream: av.VideoStream) -> None:
    """Refuses colours in which nothing here can compute: taken for others, all would be wrong.

    Raises:
        InputError: naming them; the stream's container is closed.
    """
    context = stream.codec_context  # None: of a codec unknown here, which decoding says
    strange = context and STRANGE_MATRICES.get(int(context.colorspace))
    if strange:
        stream.container.close()
        raise InputError(f"{name}: its colours are {strange}; convert it to BT.709 or BT.2020 first")


def is_picture(container: av.container.InputContainer) -> bool:
    """Whether it is of FFmpeg's ways to read a single picture as a video of one frame."""
    return container.format.name in ("image2", "ico") or container.format.name.endswith("_pipe")


def reason(error: Exception) -> str:
    """What FFmpeg or the system says, without its number and file name."""
    if isinstance(error, ExitError):  # "Immediate exit requested": by our limit of time
        return "timed out"
    return getattr(error, "strerror", None) or str(error)


def tagged_end(stream: Stream) -> float | None:
    """Seconds at which a stream of Matroska ends, by the tag that most muxers write."""
    tags = (text for name, text in stream.metadata.items() if name.partition("-")[0] == "DURATION")
    try:
        hours, minutes, seconds = (float(part) for part in next(tags, "").split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def frame_rate(video: av.VideoStream) -> Fraction | None:
    """Frames a second, as far as the container says. Where that is a frame for every tick of a finer clock
    (DV says 60,000), what FFmpeg guesses."""
    said, guessed = video.average_rate, video.guessed_rate
    if said and guessed and video.time_base and guessed < said >= 1 / video.time_base:
        return guessed
    return said or guessed


def describe(container: av.container.InputContainer, video: av.VideoStream) -> VideoInfo:
    duration: float | None = None
    if video.duration is not None and video.time_base is not None:
        duration = float(video.duration * video.time_base)
    elif container.duration is not None:
        duration = container.duration / av.time_base
    return VideoInfo(
        time_base=video.time_base or Fraction(1, av.time_base),
        rate=frame_rate(video),
        # AVI counts empty packets, which stand for a picture shown again.
        frames=0 if container.format.name == "avi" else video.frames,
        duration_seconds=duration,
        sample_aspect_ratio=video.sample_aspect_ratio or Fraction(1),
        chroma_location=chroma.read_location(video),
    )

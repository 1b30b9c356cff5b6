"""A process of its own that writes to files and servers, so that none of them can stop the pipeline.

FFmpeg's writers can wait for ever on a peer that is silent, and PyAV holds Python's lock while it opens and
closes them. Here a kernel timer ends the process when one operation takes too long; the parent sees that,
says so and starts another. When the parent dies, its end of the pipe closes, and the file is closed in order.

Run as a script, without the package, it imports nothing but PyAV. On standard input: pickled tuples,
    (url, format, options, seed, timeout_seconds)    first; the seed is a NUT file that holds the streams
    (stream, data, pts, dts, time_base, is_key)      packets
    None                                             the end
On standard output, lines: ``ready``, ``done TIME`` (a packet of stream 0 is written; of the monotonic clock),
``refused`` (a packet of sound that is damaged), ``closed``, ``error TEXT``.
"""

from __future__ import annotations

import io
import pickle
import signal
import sys
import time
from typing import Any

import av


def main() -> None:
    """Until the end of the input, or an error."""
    # The parent decides when to end, also after a Ctrl-C in the terminal and in a service that is stopped.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # by the kernel, whoever holds Python's lock
    messages, answers = sys.stdin.buffer, sys.stdout
    url, name, options, seed, timeout_seconds = pickle.load(messages)
    try:
        write(url, name, options, seed, timeout_seconds, messages, answers)
    except Exception as error:  # PyAV's, the system's: all go to the parent as they are
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        say(answers, "error " + " ".join(str(text).split()))


def write(
    url: str,
    name: str,
    options: dict[str, str],
    seed: bytes,
    timeout_seconds: float,
    messages: Any,
    answers: Any,
) -> None:
    bounded(timeout_seconds)
    target = url if "://" in url else f"file:{url}"
    template = av.open(io.BytesIO(seed), format="nut", options={"analyzeduration": "0"})
    # 1: whatever is in hand goes out, instead of waiting up to 10 s for a stream that is silent.
    container = av.open(
        target,
        "w",
        format=name,
        container_options={**options, "max_interleave_delta": "1", "flush_packets": "1"},
    )
    streams = [container.add_stream_from_template(s) for s in template.streams]
    container.start_encoding()
    bounded(0)
    say(answers, "ready")
    while (message := receive(messages)) is not None:
        index, data, pts, dts, time_base, is_key = message
        packet = av.Packet(data)
        packet.pts, packet.dts, packet.time_base, packet.is_keyframe = pts, dts, time_base, is_key
        packet.stream = streams[index]
        bounded(timeout_seconds)
        try:
            container.mux_one(packet)
        except (av.error.InvalidDataError, av.error.PatchWelcomeError):
            if index == 0:
                raise
            say(answers, "refused")  # damaged sound: the picture goes on
        bounded(0)
        if index == 0:
            say(answers, f"done {time.monotonic()!r}")
    bounded(timeout_seconds)
    container.close()
    say(answers, "closed")


def receive(messages: Any) -> Any:
    """The next message; None at the end, also when the parent is gone."""
    try:
        return pickle.load(messages)
    except (EOFError, pickle.UnpicklingError):
        return None


def bounded(seconds: float) -> None:
    """Ends this process so long from now; 0: no more."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def say(answers: Any, line: str) -> None:
    try:
        answers.write(line + "\n")
        answers.flush()
    except OSError:  # the parent is gone; what came from it is still written
        pass


if __name__ == "__main__":
    main()

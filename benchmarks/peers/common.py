"""What every peer's script shares: frames in, frames out, the same encoder settings as banet-stream's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import av

ENCODER, OPTIONS = "libx264", {"crf": "18", "preset": "medium"}  # banet_stream/codecs.py


def run(source: str, target: str, work: Callable[[av.VideoFrame], av.VideoFrame]) -> None:
    """Decodes, works and encodes frame by frame, as a plain script does; prints frames and seconds."""
    with av.open(source) as input_, av.open(target, "w") as output:
        video = input_.streams.video[0]
        video.thread_type = "AUTO"
        stream = output.add_stream(ENCODER, rate=video.average_rate, options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        frames, start = 0, time.perf_counter()
        for frame in input_.decode(video):
            out = work(frame)
            out.pts, out.time_base = frame.pts, frame.time_base
            output.mux(stream.encode(out))
            frames += 1
        output.mux(stream.encode(None))
    print(frames, time.perf_counter() - start)


def arguments(usage: str) -> list[str]:
    words = sys.argv[1:]
    if len(words) < 2:
        sys.exit(f"usage: {usage}")
    return words

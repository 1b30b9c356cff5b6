"""Does memory stay flat? Streams many synthetic frames through the whole pipeline and watches its size.

    python -m benchmarks.soak                      # 100,000 frames of 128x96: tens of minutes on two cores
    python -m benchmarks.soak --hours 1            # a clip of an hour, with sound, looped from a short one
    python -m benchmarks.soak --frames 3000        # a rehearsal

Decoding, the network (at a small size), compositing and encoding are the real ones. Resident memory is read
after every 100 frames; after a warm-up of a twentieth of the frames (at least 500) it may vary by 50 MiB.
Exits with 1 if it varies by more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from banet_stream import EncodeOptions, Matter, Progress, process

LIMIT_MIB = 50.0
WIDTH, HEIGHT, RATE = 128, 96, 25
LOOP_FRAMES = 250  # encoded once, repeated as packets
EVERY_FRAMES = 100


def make_clip(path: Path, frames: int, *, sound: bool) -> None:
    """A moving pattern; its packets are encoded once and repeated with later timestamps."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("libopus", rate=48000, layout="mono") if sound else None
        packets = [
            (bytes(p), p.pts, p.is_keyframe)
            for index in range(LOOP_FRAMES)
            for p in video.encode(picture(index))
        ]
        packets += [(bytes(p), p.pts, p.is_keyframe) for p in video.encode(None)]
        for number in range(frames):
            content, pts, is_key = packets[number % LOOP_FRAMES]
            packet = av.Packet(content)
            packet.pts = packet.dts = pts + number // LOOP_FRAMES * LOOP_FRAMES
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, RATE), video, is_key
            container.mux(packet)
            if audio is not None:
                samples = av.AudioFrame(format="flt", layout="mono", samples=48000 // RATE)
                for plane in samples.planes:
                    plane.update(bytes(plane.buffer_size))
                samples.sample_rate, samples.pts = 48000, number * (48000 // RATE)
                samples.time_base = Fraction(1, 48000)
                container.mux(audio.encode(samples))
        if audio is not None:
            container.mux(audio.encode(None))


def picture(index: int) -> av.VideoFrame:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 100 * np.sin((x * k + y + 3 * index) / 11) for k in (1, 2, 3)]
    frame = av.VideoFrame.from_ndarray(np.stack(waves, -1).astype(np.uint8), format="rgb24")
    frame = frame.reformat(format="yuv420p")
    frame.pts, frame.time_base = index, Fraction(1, RATE)
    return frame


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--hours", type=float, help="so long a clip with sound, instead of --frames")
    parser.add_argument("--size", type=int, default=64, help="as of banet-stream")
    parser.add_argument("--suffix", default=".mp4", help="container of the output")
    options = parser.parse_args()
    frames = options.frames if options.hours is None else round(options.hours * 3600 * RATE)
    sizes: list[float] = []

    def watch(now: Progress) -> None:
        if now.frames % EVERY_FRAMES == 0:
            sizes.append(resident_mib())
            if now.frames % (20 * EVERY_FRAMES) == 0:
                print(f"{now.frames:>8} frames  {now.fps:7.1f} fps  {sizes[-1]:8.1f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.mkv", Path(folder) / f"out{options.suffix}"
        make_clip(source, frames, sound=options.hours is not None)
        matter = Matter(device="cpu", size=options.size)
        began = time.perf_counter()
        summary = process(
            source, output, background="blur", matter=matter, encoding=EncodeOptions(crf=30), progress=watch
        )
        seconds = time.perf_counter() - began
    steady = sizes[max(5, len(sizes) // 20) :]
    if len(steady) < 2:
        print("too few frames to judge: give at least 1000")
        return 1
    spread = max(steady) - min(steady)
    verdict = "flat" if spread <= LIMIT_MIB else "NOT FLAT"
    print(
        f"{summary.frames} frames in {seconds:.0f} s; after warm-up between {min(steady):.1f} and "
        f"{max(steady):.1f} MiB: varies by {spread:.1f} of {LIMIT_MIB:g} MiB allowed: {verdict}"
    )
    return 0 if spread <= LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())

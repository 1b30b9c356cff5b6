"""A live run, measured: latency, drops, memory and processor share, in one table.

    python -m benchmarks.bench_live                      # 720p30 for ten minutes on two cores
    python -m benchmarks.bench_live --seconds 20         # a rehearsal
    python -m benchmarks.bench_live --input CLIP         # a recording, looped, instead of a test picture
    python -m benchmarks.bench_live --cut-seconds 60     # the network is cut for a minute in mid-run

The tool runs as a person would run it, in a process of its own, into an HLS folder; its memory and processor
time (with that of the process that writes) are read from /proc. Nothing else should run meanwhile.

With --cut-seconds the source is a camera with sound, MPEG-TS over TCP, that falls silent and answers nobody
for so long after a third of the run; OUTPUT is a file, which is read back. Picture and sound mark the same
moments: the table says when they came again, and how far the sound is behind the picture before and after.
Exits with 1 if they did not, or if that step or the memory changed by more than the limits below.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import av

from .marks import PERIOD_SECONDS, Camera, MarkServer, steps

LOOK_SECONDS = 1.0
# Memory is compared between this share of the run and its end: by then everything is loaded.
WARM_SHARE = 0.2
# The network is cut after this share of the run. A step is read to a frame's time; a warm run's memory varies
# by itself (soak.py).
CUT_AT_SHARE = 1 / 3
LIMIT_STEP_MS, LIMIT_GROWTH_MIB = 100.0, 50.0
TEST_PICTURE = "lavfi:testsrc2=size={size}:rate={rate},format=yuv420p"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures a live run.")
    add = parser.add_argument
    add("--seconds", type=float, default=600)
    add("--size", default="1280x720", help="of the test picture")
    add("--rate", type=int, default=30, help="of the test picture")
    add("--input", help="a clip to play in a loop instead")
    add("--cores", type=int, default=2)
    add("--cut-seconds", type=float, help="cut the source's network for so long in mid-run")
    add("options", nargs="*", help="for banet-stream, after --")
    options = parser.parse_args()
    if options.cut_seconds and options.input:
        parser.error("--cut-seconds: has a source of its own; leave --input out")
    if options.cut_seconds and options.seconds < 3 * options.cut_seconds + 30:
        parser.error("--cut-seconds: --seconds must be at least three times that, and 30 more")
    return options


def main() -> None:
    options = parse()
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    os.sched_setaffinity(0, cores)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cut = None
        output = f"{folder}/live/"
        source = TEST_PICTURE.format(size=options.size, rate=options.rate)
        if options.input:
            source = looped(Path(options.input), folder / "loop.mkv", options.seconds)
        if options.cut_seconds:
            width, height = (int(side) for side in options.size.split("x"))
            camera = Camera(width=width, height=height, rate=options.rate)
            cut = Cut(camera, options.seconds * CUT_AT_SHARE, options.cut_seconds)
            stack.callback(cut.close)
            source, output = cut.server.url, str(folder / "live.mkv")
        command = [sys.executable, "-m", "banet_stream", source, "-o", output, "--bg", "blur"]
        command += ["--duration", str(options.seconds), "--stats", "--stats-every", "60"]
        command += [] if cut else ["--realtime"]
        began = time.monotonic()
        process = subprocess.Popen([*command, *options.options], stdout=subprocess.PIPE, text=True)
        memory, busy = watch(process, options.seconds)
        out, _ = process.communicate(timeout=60)
        wall = time.monotonic() - began
        if process.returncode:
            sys.exit(f"banet-stream ended with {process.returncode}")
        print(report(out, memory, busy, wall, len(cores), options.input or source))
        if cut and not cut.report(Path(output), memory, began):
            sys.exit(1)


def looped(clip: Path, target: Path, seconds: float) -> str:
    """The clip over and over, without encoding, for at least so long."""
    with av.open(str(target), "w") as output:
        copy = None
        shift = 0
        while True:
            with av.open(str(clip)) as container:
                video = container.streams.video[0]
                copy = copy or output.add_stream_from_template(video)
                assert video.time_base is not None
                step = round(1 / (video.average_rate or 30) / video.time_base)
                last = 0
                for packet in container.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + step)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copy
                    output.mux(packet)
                shift += last
                if shift * video.time_base >= seconds + 5:
                    return str(target)


def watch(process: subprocess.Popen[str], seconds: float) -> tuple[list[tuple[float, float]], float]:
    """(time, resident MiB) again and again, and the processor seconds, of the tool and its children."""
    memory: list[tuple[float, float]] = []
    busy = 0.0
    began = time.monotonic()
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        total = 0.0
        ticks = 0.0
        for pid in family(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            resident = re.search(r"VmRSS:\s+(\d+) kB", status)
            total += int(resident[1]) / 1024 if resident else 0.0
            ticks += int(fields[11]) + int(fields[12])
        if total:
            memory.append((time.monotonic() - began, total))
            busy = max(busy, ticks / os.sysconf("SC_CLK_TCK"))
        if time.monotonic() - began > seconds + 120:
            process.send_signal(signal.SIGTERM)
    return memory, busy


def family(pid: int) -> list[int]:
    """A process and its children."""
    pids = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids += [int(word) for word in file.read_text().split()]
        except OSError:
            continue
    return pids


def report(
    out: str, memory: list[tuple[float, float]], busy: float, wall: float, cores: int, source: str
) -> str:
    warm = [m for t, m in memory if t >= WARM_SHARE * wall] or [0.0]
    rows = {
        "processor share": f"{100 * busy / wall / cores:.0f} % of {cores} cores",
        "memory when warm": f"{warm[0]:.0f} MiB",
        "memory at the end": f"{warm[-1]:.0f} MiB",
        "memory at most": f"{max(m for _, m in memory):.0f} MiB",
    }
    lines = [f"{name:<24}{value}" for name, value in rows.items()]
    machine = f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {source}"
    return "\n".join([out.rstrip(), *lines, machine])


class Cut:
    """A source whose network is cut in mid-run, and what came of it."""

    def __init__(self, camera: Camera, at_seconds: float, seconds: float) -> None:
        self.server, self.at_seconds, self.seconds = MarkServer(camera), at_seconds, seconds
        self.began = math.inf  # monotonic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self.server.viewed.wait(LOOK_SECONDS):
            if self._over.is_set():
                return
        if not self._over.wait(self.at_seconds):
            self.began = time.monotonic()
            self.server.cut()
            self._over.wait(self.seconds)
            self.server.mend()

    def close(self) -> None:
        """Ends the source."""
        self._over.set()
        self._thread.join()
        self.server.close()

    def report(self, output: Path, memory: list[tuple[float, float]], began: float) -> bool:
        """Prints the rows about the cut; False: something is not as it should be. ``began``: the run."""
        found = steps(output)
        gaps = [(later - sooner, sooner) for (sooner, _), (later, _) in itertools.pairwise(found)]
        away, left = max(gaps, default=(0.0, 0.0))
        before = [step for seconds, step in found if seconds <= left]
        after = [step for seconds, step in found if seconds > left]
        if away < self.seconds or not (before and after):
            print(f"cut for {self.seconds:g} s: no picture came again ({len(found)} marks in all)")
            return False
        behind_ms = [1000 * median(side) for side in (before, after)]
        before_mib = [m for t, m in memory if began + t <= self.began][-1]
        grown_mib = max(m for t, m in memory if began + t > self.began) - before_mib
        rows = {
            "network cut for": f"{self.seconds:g} s; {away:.1f} s from mark to mark",
            "marks before, after": f"{len(before)}, {len(after)}; one in {float(PERIOD_SECONDS):g} s",
            "sound behind picture": "{:.0f} ms before, {:.0f} ms after".format(*behind_ms),
            "memory before the cut": f"{before_mib:.0f} MiB; {grown_mib:+.0f} MiB at most later",
        }
        print("\n".join(f"{name:<24}{value}" for name, value in rows.items()))
        kept = abs(behind_ms[1] - behind_ms[0]) <= LIMIT_STEP_MS and grown_mib <= LIMIT_GROWTH_MIB
        print(f"step and memory kept: {'yes' if kept else 'NO'}")
        return kept


if __name__ == "__main__":
    main()

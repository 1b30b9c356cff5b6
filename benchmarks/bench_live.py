"""A live run, measured: latency, drops, memory and processor share, in one table.

    python benchmarks/bench_live.py                      # 720p30 for ten minutes on two cores
    python benchmarks/bench_live.py --seconds 20         # a rehearsal
    python benchmarks/bench_live.py --input CLIP         # a recording, looped, instead of a test picture

The tool runs as a person would run it, in a process of its own, into an HLS folder; its memory and processor
time (with that of the process that writes) are read from /proc. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

LOOK_SECONDS = 1.0
# Memory is compared between this share of the run and its end: by then everything is loaded.
WARM_SHARE = 0.2
TEST_PICTURE = "lavfi:testsrc2=size={size}:rate={rate},format=yuv420p"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a live run.")
    add = parser.add_argument
    add("--seconds", type=float, default=600)
    add("--size", default="1280x720", help="of the test picture")
    add("--rate", type=int, default=30, help="of the test picture")
    add("--input", help="a clip to play in a loop instead")
    add("--cores", type=int, default=2)
    add("options", nargs="*", help="for banet-stream, after --")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    os.sched_setaffinity(0, cores)
    with tempfile.TemporaryDirectory() as folder:
        source = TEST_PICTURE.format(size=options.size, rate=options.rate)
        if options.input:
            source = looped(Path(options.input), Path(folder) / "loop.mkv", options.seconds)
        command = [sys.executable, "-m", "banet_stream", source, "-o", f"{folder}/live/", "--bg", "blur"]
        command += ["--realtime", "--duration", str(options.seconds), "--stats", "--stats-every", "60"]
        began = time.monotonic()
        process = subprocess.Popen([*command, *options.options], stdout=subprocess.PIPE, text=True)
        memory, busy = watch(process, options.seconds)
        out, _ = process.communicate(timeout=60)
        wall = time.monotonic() - began
    if process.returncode:
        sys.exit(f"banet-stream ended with {process.returncode}")
    print(report(out, memory, busy, wall, len(cores), source if not options.input else options.input))


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


if __name__ == "__main__":
    main()

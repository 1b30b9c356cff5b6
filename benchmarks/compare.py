"""End to end beside what else a user would pick, in one run on one clip: who is how fast, at what cost.

    python -m benchmarks.compare CLIP [--repeats 3] [--mediapipe PYTHON] [--data TAR] [--save] [--readme]

Every contender is a process of its own: clip in, H.264 out with the same encoder settings, the same picture
behind. They take turns, so that other load on the machine meets all. Frames per second are counted from the
first frame to the end of the file (start-up stands in its own column); CPU seconds and peak memory are what
the kernel counted for the whole process. Shown are medians, and each one's share of the pure transcode.

The RVM-shaped network has random weights (its own can't be had here) and shows what such a network costs.
--mediapipe names a Python that has mediapipe 0.10.14, av and pillow (it needs an older NumPy than we do).
--data names pictures with mattes (a tar, as for training): how accurate each one's mattes are, at the size it
uses for video.
--readme puts the table into README.md, between its two marks, and the chart beside it (docs/compare.svg).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from banet_stream import Matter
from banet_stream.demo.samples import draw_room
from banet_stream.matting import QUALITIES
from training import evaluate, sets

from .bench_ops import about
from .chart import bars

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README, CHART = HERE.parent / "README.md", HERE.parent / "docs/compare.svg"
RVM = "RVM-shaped, ONNX Runtime"
BEGIN, END = "<!-- benchmarks/compare.py writes from here -->\n", "<!-- to here -->\n"


@dataclass(frozen=True)
class Run:
    """One process: seconds to the first frame and after it, CPU seconds, peak memory."""

    frames: int
    seconds: float
    start_seconds: float
    cpu_seconds: float
    peak_mib: float

    @property
    def fps(self) -> float:
        return self.frames / self.seconds


def measure(command: list[str], output: Path) -> Run:
    """Runs a contender, which prints its frames and seconds (or ours, JSON).

    Raises:
        SystemExit: when it fails, or lost frames.
    """
    output.unlink(missing_ok=True)
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = os.posix_spawn(
            command[0], command, dict(os.environ, OMP_WAIT_POLICY="passive"),
            file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1)],
        )  # fmt: skip
        _, status, usage = os.wait4(process, 0)
        wall = time.perf_counter() - began
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    if text.lstrip().startswith("{"):
        summary = json.loads(text)
        frames, seconds = summary["frames"], summary["seconds"]
    else:
        words = text.split()[-2:]
        frames, seconds = int(words[0]), float(words[1])
    with av.open(str(output)) as container:
        written = sum(1 for _ in container.demux(video=0)) - 1  # the last packet is the flush
    if written != frames:
        sys.exit(f"{command[0]}: says {frames} frames, wrote {written}")
    return Run(frames, seconds, wall - seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def contenders(
    clip: str, room: str, folder: Path, mediapipe: str | None
) -> dict[str, tuple[list[str], Path]]:
    """Name -> command and the file it writes."""
    peers, python = HERE / "peers", sys.executable
    rows: dict[str, list[str]] = {"pure transcode": [python, str(peers / "transcode.py"), clip]}
    for quality in QUALITIES:
        rows[f"banet-stream --quality {quality}"] = [python, "-m", "banet_stream", clip]
    rows["PyTorch eager BANet"] = [python, str(peers / "torch_eager.py"), clip]
    rows[RVM] = [python, str(peers / "rvm_shaped.py"), clip]
    if mediapipe:
        for model in ("landscape", "general"):
            rows[f"MediaPipe script, {model}"] = [mediapipe, str(peers / "mediapipe_selfie.py"), clip]
    made = {}
    for number, (name, words) in enumerate(rows.items()):
        output = folder / f"{number}.mp4"
        if name.startswith("banet-stream"):
            quality = name.split()[-1]
            words += ["-o", str(output), "--bg", room, "--quality", quality, "--no-audio", "--overwrite"]
            words += ["--json", "--quiet"]
        else:
            words += [str(output), room]
        if "MediaPipe" in name:
            words.append(name.split()[-1])
        if name == RVM:
            words.append(rvm_network(folder))
        made[name] = (words, output)
    return made


def rvm_network(folder: Path) -> str:
    """Writes a network of RobustVideoMatting's shape."""
    path = str(folder / "rvm.onnx")
    command = [sys.executable, str(HERE / "peers/rvm_network.py"), path]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # the exporter says what it lacks
    return path


def accuracies(data: Path, mediapipe: str | None, folder: Path) -> dict[str, str]:
    """Contender -> mIoU and boundary IoU, as the table shows them."""
    pairs = sets.read(data)
    predictors = {
        f"banet-stream --quality {quality}": as_first_frame(Matter(device="cpu", **point._asdict()))
        for quality, point in QUALITIES.items()
    }
    for model in ("landscape", "general") if mediapipe else ():
        mattes = folder / model
        mattes.mkdir()
        subprocess.run([mediapipe, HERE / "peers/mediapipe_mattes.py", data, mattes, model], check=True)
        kept = iter([mattes / f"{pair.key.rpartition(' ')[2]}.png" for pair in pairs])
        predictors[f"MediaPipe script, {model}"] = lambda _, kept=kept: read_matte(next(kept))
    shown = {}
    for name, predict in predictors.items():
        numbers = evaluate.summary(*evaluate.score(evaluate.Predict(predict), pairs))
        shown[name] = f"{numbers['miou']:.1f} | {numbers['boundary_iou']:.2f}"
    return shown


def as_first_frame(matter: Matter) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The matte of a picture that a video begins with."""
    return lambda rgb: matter.stream().alpha(rgb)


def read_matte(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image, np.float32) / 255


def table(runs: dict[str, list[Run]], accuracy: dict[str, str]) -> list[str]:
    """Medians."""
    lines = [
        "| end to end | fps | of transcode | start-up s | CPU ms/frame | peak MiB | mIoU % | boundary IoU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    limit = statistics.median(run.fps for run in runs["pure transcode"])
    for name, several in runs.items():
        middle = [
            statistics.median(values)
            for values in zip(
                *((r.fps, r.start_seconds, 1000 * r.cpu_seconds / r.frames, r.peak_mib) for r in several),
                strict=True,
            )
        ]
        fps, start, cpu, peak = middle
        lines.append(
            f"| {name} | {fps:.1f} | {fps / limit:.2f} | {start:.1f} | {cpu:.0f} | {peak:.0f} "
            f"| {accuracy.get(name, ' | ')} |"
        )
    return lines


def put_into_readme(lines: list[str], runs: dict[str, list[Run]], title: str) -> None:
    """Table and chart; README keeps what is before and after its marks."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fps = {name: statistics.median(run.fps for run in several) for name, several in runs.items()}
    CHART.write_text(bars(fps, title=title, unit="fps", ours="banet-stream"))
    picture = f"![{title}](docs/{CHART.name})"
    README.write_text(before + BEGIN + "\n".join(["", picture, "", *lines, "", END]) + after)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mediapipe", metavar="PYTHON", help="a Python that has mediapipe 0.10.14")
    parser.add_argument("--data", type=Path, metavar="TAR", help="pictures with mattes, for accuracy")
    parser.add_argument("--save", action="store_true", help="also write the table to benchmarks/results/")
    parser.add_argument("--readme", action="store_true", help="also renew README's table and chart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with av.open(options.clip) as container:
            video = container.streams.video[0]
            size, frames = (video.width, video.height), video.frames
        room = folder / "room.png"
        draw_room().resize(size).save(room)
        commands = contenders(options.clip, str(room), folder, options.mediapipe)
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for contender, (command, output) in commands.items():
                runs[contender].append(measure(command, output))
                print(f"{contender}: {runs[contender][-1].fps:.1f} fps", file=sys.stderr, flush=True)
        accuracy = accuracies(options.data, options.mediapipe, folder) if options.data else {}
    threads = os.cpu_count() or 1
    lines = [about("cpu", threads), ""]
    lines += [
        f"{size[0]}x{size[1]}, {frames} frames, a picture behind, median of {options.repeats} runs:",
        "",
    ]
    lines += table(runs, accuracy)
    print("\n".join(lines))
    if options.save:
        path = RESULTS / f"compare-cpu-{datetime.now(UTC):%Y-%m-%d}.md"
        path.write_text("\n".join(lines) + "\n")
        print(f"saved to {path.name}", file=sys.stderr)
    if options.readme:
        put_into_readme(lines, runs, f"End to end, {size[0]}x{size[1]}, frames per second")
    return 0


if __name__ == "__main__":
    sys.exit(main())

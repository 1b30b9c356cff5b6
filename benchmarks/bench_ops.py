"""Every operator beside its reference and beside a plain copy of the bytes it must move, in one run.

    python -m benchmarks.bench_ops [--device cpu] [--threads 2] [--size 1080p] [--seconds 1] [--save]

GB/s counts what any implementation must read and write once (frames in, frames out), not what this one does;
its share is of a copy of as many bytes, measured in the same run. Operator, reference and copy alternate, so
that other load on the machine meets all three.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch starts its threads

import torch
from torch import Tensor

from banet_stream import backends, ops

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4k": (2160, 3840)}
MATTE = (288, 512)  # the network's size for 16:9
COLOUR = {"matrix": "bt709", "full_range": False}
RESULTS = Path(__file__).parent / "results"


def frame(height: int, width: int, device: str, seed: int) -> list[Tensor]:
    """8-bit 4:2:0 with large shapes and camera-like noise."""
    random = torch.Generator().manual_seed(seed)
    planes = []
    for shape in ((height, width), (height // 2, width // 2), (height // 2, width // 2)):
        coarse = torch.rand(1, 1, 9, 16, generator=random)
        smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="bilinear")[0, 0]
        noisy = 255 * smooth + 3 * torch.randn(shape, generator=random)
        planes.append(noisy.clamp(0, 255).to(torch.uint8).to(device))
    return planes


def portrait(device: str) -> Tensor:
    """A head and shoulders, about a third of the frame, with an edge some pixels wide as a network gives."""
    y = torch.linspace(0, 1, MATTE[0])[:, None]
    x = torch.linspace(-0.89, 0.89, MATTE[1])[None, :]
    head = 1 - ((x / 0.16) ** 2 + ((y - 0.32) / 0.2) ** 2)
    shoulders = 1 - ((x / 0.5) ** 2 + ((y - 1.0) / 0.5) ** 2)
    return (0.002 + 0.996 * torch.sigmoid(20 * torch.maximum(head, shoulders))).to(device)


def cases(size: str, device: str) -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> call and the bytes it must read and write."""
    height, width = SIZES[size]
    planes, back, alpha = frame(height, width, device, 0), frame(height, width, device, 1), portrait(device)
    frame_bytes = sum(p.numel() for p in planes)
    small = 4 * MATTE[0] * MATTE[1]
    noise = torch.rand(alpha.shape, generator=torch.Generator().manual_seed(2)).to(device)
    colours = torch.stack([alpha, 1 - alpha, alpha]) + 0.05 * noise
    image = torch.rand(4, 3, 512, 512, device=device)
    logits = torch.randn(4, 1, 128, 128, device=device, requires_grad=True)
    prediction = torch.rand(4, 1, 512, 512, device=device, requires_grad=True)
    mask, plane = (torch.rand_like(prediction) > 0.8).float(), 4 * 512 * 512 * 4
    upstream = torch.rand(4, 4, 512, 512, device=device)

    def attention(backward: bool) -> None:
        out = ops.boundary_attention(logits, image, temperature=4.0)
        if backward:
            torch.autograd.grad(out, logits, upstream)

    def refine(backward: bool) -> None:
        loss = ops.refine_loss(image, prediction, mask)
        if backward:
            torch.autograd.grad(loss, prediction)

    return {
        f"frame_to_input, {size}": (
            lambda: ops.frame_to_input(planes, size=MATTE, **COLOUR),
            frame_bytes + 3 * small,
        ),
        f"upsample_alpha, {size}": (
            lambda: ops.upsample_alpha(alpha, planes[0]),
            5 * planes[0].numel() + small,
        ),
        "fade_islands, 288 x 512": (lambda: ops.fade_islands(alpha), 2 * small),
        "fill_holes, 288 x 512": (lambda: ops.fill_holes(alpha), 2 * small),
        "guided_filter, 288 x 512": (lambda: ops.guided_filter(alpha, colours), 5 * small),
        "steady_alpha, 288 x 512": (
            lambda: ops.steady_alpha(alpha, noise, certain=0.25, steady=0.35),
            3 * small,
        ),
        f"composite, {size}": (lambda: ops.composite(planes, alpha, back), 3 * frame_bytes + small),
        f"composite, {size}, soft everywhere": (
            lambda: ops.composite(planes, noise, back),
            3 * frame_bytes + small,
        ),
        f"masked_blur, {size}": (
            lambda: ops.masked_blur(planes, alpha, sigma=height / 40),
            2 * frame_bytes + small,
        ),
        "boundary_attention, 4 x 512 x 512": (lambda: attention(False), 7 * plane),
        "boundary_attention with backward": (lambda: attention(True), 9 * plane),
        "sobel_gradient, 4 x 512 x 512": (lambda: ops.sobel_gradient(image), 6 * plane),
        "refine_loss, 4 x 512 x 512": (lambda: refine(False), 5 * plane),
        "refine_loss with backward": (lambda: refine(True), 6 * plane),
    }


def keep_memory() -> None:
    """Freed memory stays with the process, as in a stream, which has a few dozen page faults per second.

    Else glibc hands large tensors back and fetches them anew, and their page faults outweigh the operators.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting, value in (
            (-3, 2**25),
            (-1, 2**31 - 1),
        ):  # M_MMAP_THRESHOLD (at its most), M_TRIM_THRESHOLD
            if libc.mallopt(setting, value) != 1:
                sys.exit(f"mallopt({setting}, {value}) failed: times would be those of page faults")


def timed(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start)


def turn_by_turn(calls: Sequence[Callable[[], object]], runs: int, *, warm: int) -> list[float]:
    """Each call's median milliseconds on a CPU, after ``warm`` rounds; they take turns, so that other load on
    the machine meets all."""
    rounds = [[timed(call, "cpu") for call in calls] for _ in range(warm + runs)]
    return [statistics.median(own) for own in zip(*rounds[warm:], strict=True)]


def measure(
    call: Callable[[], object], moved: int, device: str, seconds: float
) -> tuple[float, float, float]:
    """Median milliseconds of operator, reference and copy."""
    source = torch.zeros(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times: dict[str, list[float]] = {"fast": [], "reference": [], "copy": []}
    for warm in (True, False):
        end = time.perf_counter() + (0 if warm else seconds)
        while True:
            for _ in range(5):  # short ones often: medians need many
                times["fast"].append(timed(call, device))
                times["copy"].append(timed(lambda: target.copy_(source), device))
            with backends.using("reference"):
                times["reference"].append(timed(call, device))
            if warm:
                times = {name: [] for name in times}
            if time.perf_counter() >= end and (warm or len(times["reference"]) >= 5):
                break
    fast, reference, copy = (statistics.median(t) for t in times.values())
    return fast, reference, copy


def commit() -> str:
    """Empty where there is no git, or no repository."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def about(device: str, threads: int) -> str:
    where = processor(threads) if device == "cpu" else torch.cuda.get_device_name(device)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit() or 'unknown'}, torch {torch.__version__}, {where}."
    )


def processor(threads: int) -> str:
    """Its name and widest instructions: the same name stands for processors of several generations."""
    name = f"{platform.processor() or platform.machine()} CPU"
    if Path("/proc/cpuinfo").exists():
        models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    instructions, load = torch.backends.cpu.get_cpu_capability(), os.getloadavg()[0]
    return (
        f"{name} ({instructions}), {threads} threads of {os.cpu_count()} processors, "
        f"load average {load:.1f} at the start"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", choices=SIZES, default="1080p")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each operator")
    parser.add_argument("--save", action="store_true", help="also write the table to benchmarks/results/")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    lines = [
        about(arguments.device, arguments.threads),
        "",
        "| operator | served by | median ms | GB/s | share of copy | reference ms | times faster |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    kind = torch.device(arguments.device).type
    for name, (call, moved) in cases(arguments.size, arguments.device).items():
        fast, reference, copy = measure(call, moved, arguments.device, arguments.seconds)
        served = backends.describe()[name.split(",")[0].split(" ")[0]].split(f"{kind}: ")[1].split(",")[0]
        row = (
            f"| {name} | {served.split(';')[0]} | {fast:.2f} | {moved / fast / 1e6:.1f} | {copy / fast:.0%} "
        )
        lines.append(row + f"| {reference:.1f} | {reference / fast:.1f} |")
        print(lines[-1], flush=True)
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"ops-{kind}-{arguments.size}.md"
        path.write_text("\n".join(lines) + "\n")
        print(
            f"saved to {path.relative_to(Path.cwd())}"
            if path.is_relative_to(Path.cwd())
            else f"saved to {path}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

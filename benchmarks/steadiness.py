"""Flicker and lag of the mattes of real clips, without and with the smoothing over time.

    python -m benchmarks.steadiness CLIP... [--frames 100]

No clip has a true matte, so both are measured against the network's own, frame by frame:

    dtSSD    the root mean square change of the matte from frame to frame, x100, where the picture is still
             (there a true matte does not change, so all of it is flicker)
    lag      by how many frames the matte trails where the picture moves: the least-squares d for which the
             smoothed matte is the network's, d frames ago
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from torch.nn import functional as F

from banet_stream import Matter
from banet_stream.decode import Source, decode
from banet_stream.frame import AnyFrame, Frame
from banet_stream.matting import Matted, MatteStream

# Luma in 0..255, averaged over the matte's pixel and its neighbours: below it is still, above it moves.
STILL, MOVING = 1.5, 6.0
NEIGHBOURS = 9


class Unsmoothed(MatteStream):
    """Every frame for itself."""

    def matted(self, frame: AnyFrame) -> Matted[AnyFrame]:
        """See MatteStream."""
        self._previous = None
        return super().matted(frame)


def main() -> None:
    parser = argparse.ArgumentParser(description="Flicker and lag of mattes.")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    matter = Matter(device="cpu", size=options.size)
    print("| clip | still | dtSSD before | dtSSD after | moving | lag, frames |\n|---|---|---|---|---|---|")
    for clip in options.clips:
        print(f"| {clip.stem} | {measure(clip, matter, options.frames)} |", flush=True)


def measure(clip: Path, matter: Matter, limit: int) -> str:
    raw_stream, smooth_stream = Unsmoothed(matter), matter.stream()
    source = Source(clip, audio=False)
    before = None
    sums = dict.fromkeys(("pixels", "still", "raw", "smooth", "moving", "behind", "speed"), 0.0)
    for number, frame in enumerate(f for f in decode(source) if isinstance(f, Frame)):
        if number == limit:
            break
        raw, smooth = raw_stream.network_alpha(frame), smooth_stream.network_alpha(frame)
        luma = F.interpolate(frame.planes[0][None, None].float(), raw.shape, mode="area")
        luma = F.avg_pool2d(luma, NEIGHBOURS, 1, NEIGHBOURS // 2)[0, 0]
        if before is not None and before[2].shape == luma.shape:  # else another region was chosen
            change = (luma - before[2]).abs()
            still, moving = change < STILL, change > MOVING
            velocity = (raw - before[0])[moving]
            sums["pixels"] += change.numel()
            sums["still"] += float(still.sum())
            sums["raw"] += float((raw - before[0])[still].square().sum())
            sums["smooth"] += float((smooth - before[1])[still].square().sum())
            sums["moving"] += float(moving.sum())
            sums["behind"] += float(((raw - smooth)[moving] * velocity).sum())
            sums["speed"] += float(velocity.square().sum())
        before = (raw, smooth, luma)
    source.close()
    still, pixels = max(1.0, sums["still"]), max(1.0, sums["pixels"])
    flicker = [100 * math.sqrt(sums[name] / still) for name in ("raw", "smooth")]
    lag = sums["behind"] / sums["speed"] if sums["speed"] else math.nan
    moving = sums["moving"] / pixels
    return f"{still / pixels:.0%} | {flicker[0]:.2f} | {flicker[1]:.2f} | {moving:.0%} | {lag:.2f}"


if __name__ == "__main__":
    main()

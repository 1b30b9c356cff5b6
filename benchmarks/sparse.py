"""Does boundary-sparse refinement pay? Detail at full size only where the attention map sees boundary.

    python -m benchmarks.sparse --data ../shared/data/portraits-val.tar [--model banet64] [--save]

The semantic branch sees a small picture. Detail branch and fusion then see the full one, in tiles, the most
boundary first, no more than a fixed share of them; elsewhere the small matte is enlarged. That is compared
with the small matte enlarged plainly, with guided upsampling (what the product does), and with the whole
network at full size.

Accuracy: no large pictures with mattes are at hand, so pictures of 320 pixels are the full size, and the
small one is a half of it. Milliseconds: a 16:9 picture of 512x288, enlarged four and eight times
(2048x1152, 4096x2304), PyTorch in float32 for all of them. The weights were never trained to see features and
picture at different scales.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut
from torch import Tensor
from torch.nn import functional as F

from banet_stream import ops
from banet_stream.engines import load_network
from banet_stream.network import COARSEST_STRIDE, BANet, upsample
from training import evaluate, sets
from training.data import to_input
from training.evaluate import Matte
from training.pairs import Array

from .bench_ops import RESULTS, about, turn_by_turn

# How many times as large as the small picture the full one is: where accuracy is measured, and time.
ACCURACY_FACTOR, TIMED_FACTORS = 2, (4, 8)
# Of the full picture, in its pixels. The halo holds what the detail branch and fusion look at beside a tile.
TILE, HALO = 64, 32
BUDGETS = (0.15, 0.3, 1.0)  # share of the tiles refined


class Sparse:
    """The network with its semantic branch on a small picture and its detail on tiles of one ``factor`` times
    as large."""

    def __init__(self, network: BANet, factor: int, budget: float) -> None:
        self.network, self.factor, self.budget = network, factor, budget

    @torch.inference_mode()
    def __call__(self, small: Tensor, full: Tensor) -> Tensor:
        """[1, 3, h, w] and [1, 3, factor h, factor w], normalised -> [1, 1, factor h, factor w] in 0..1."""
        net = self.network
        features = net.semantic(small)
        logits = net.project(features)
        guided = ops.boundary_attention(logits, small, temperature=net.temperature)
        mixed = net.fusion.mix(torch.cat([upsample(features, 4 // net.detail_stride), net.detail(guided)], 1))
        gate = 1 + net.fusion.reweight(mixed)  # of the whole picture: tiles have no context
        coarse = upsample(net.head(mixed * gate), net.detail_stride)
        alpha = upsample(coarse, self.factor).sigmoid()
        tiles = self.chosen(guided[:, 3:])
        if tiles:
            refined = self.refined(features, logits, full, gate, tiles)
            for (top, left), tile in zip(tiles, refined, strict=True):
                alpha[0, :, top : top + TILE, left : left + TILE] = tile
        return alpha

    def chosen(self, attention: Tensor) -> list[tuple[int, int]]:
        """The tiles (top, left) with the most boundary, within the budget."""
        side = TILE // self.factor
        share = F.avg_pool2d(attention, side)[0, 0]
        most = share.flatten().topk(max(1, round(self.budget * share.numel())))
        found = most.indices[most.values > 0.02].tolist()
        return [(TILE * (i // share.shape[1]), TILE * (i % share.shape[1])) for i in found]

    def refined(
        self, features: Tensor, logits: Tensor, full: Tensor, gate: Tensor, tiles: list[tuple[int, int]]
    ) -> Tensor:
        """[tiles, 1, TILE, TILE] in 0..1."""
        net, cell = self.network, 4 * self.factor
        margin, side = HALO // cell, (TILE + 2 * HALO) // cell
        pictures = F.pad(full, (HALO,) * 4, mode="replicate")
        context = F.pad(torch.cat([features, logits], 1), (margin,) * 4, mode="replicate")
        crops, cells = [], []
        for top, left in tiles:
            crops.append(pictures[0, :, top : top + TILE + 2 * HALO, left : left + TILE + 2 * HALO])
            y, x = top // cell, left // cell
            cells.append(context[0, :, y : y + side, x : x + side])
        near, seen = torch.stack(crops), torch.stack(cells)
        guided = ops.boundary_attention(seen[:, -1:], near, temperature=net.temperature)
        large = upsample(seen[:, :-1], cell // net.detail_stride)
        mixed = net.fusion.mix(torch.cat([large, net.detail(guided)], 1))
        refined = upsample(net.head(mixed * gate), net.detail_stride).sigmoid()
        return refined[..., HALO:-HALO, HALO:-HALO]


# What is compared: small and full picture -> matte of the full one's size.
Way = Callable[[Tensor, Tensor], Tensor]


def ways(network: BANet, factor: int) -> dict[str, Way]:
    @torch.inference_mode()
    def whole(picture: Tensor) -> Tensor:
        alpha: Tensor = network(picture).alpha.sigmoid()
        return alpha

    def guided(small: Tensor, full: Tensor) -> Tensor:
        luma = (full[0].mean(0) * 58 + 115).clamp(0, 255).to(torch.uint8)  # MEAN and STD, nearly
        return ops.upsample_alpha(whole(small)[0, 0], luma)[None, None]

    found: dict[str, Way] = {
        "small, enlarged": lambda small, _: upsample(whole(small), factor),
        "small, guided upsampling": guided,
    }
    for budget in BUDGETS:
        found[f"sparse, at most {budget:.0%} of the tiles"] = Sparse(network, factor, budget)
    found["whole network at full size"] = lambda _, full: whole(full)
    return found


def predictor(way: Way, factor: int) -> evaluate.Predict:
    def predict(rgb: Array) -> Matte:
        rows, columns = rgb.shape[:2]
        multiple = max(TILE, COARSEST_STRIDE * factor)
        size = tuple(max(1, round(side / multiple)) * multiple for side in (columns, rows))
        full = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        half = (size[0] // factor, size[1] // factor)
        small = cv2.resize(full, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        alpha = way(*(to_input(torch.from_numpy(picture[None])) for picture in (small, full)))[0, 0].numpy()
        back = cv2.resize(alpha, (columns, rows), interpolation=cv2.INTER_LINEAR)
        return back.astype(np.float32, copy=False)

    return evaluate.Predict(predict)


def milliseconds(found: dict[str, Way], factor: int, runs: int) -> dict[str, float]:
    """Each way's median time of a 16:9 picture."""
    photo = cv2.resize(astronaut()[:288], (512 * factor, 288 * factor), interpolation=cv2.INTER_LINEAR)
    full = to_input(torch.from_numpy(photo.astype(np.uint8, copy=False)[None]))
    small = F.avg_pool2d(full, factor)
    times = turn_by_turn([partial(way, small, full) for way in found.values()], runs, warm=1)
    return dict(zip(found, times, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits-val.tar"))
    parser.add_argument("--model", default="banet64")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    network, pairs = load_network(options.model), sets.read(options.data)
    lines = [about("cpu", torch.get_num_threads()), "", f"{options.model}, PyTorch in float32.", ""]
    lines += ["| accuracy | mIoU % | boundary IoU | MAD in the boundary band |", "|---|---|---|---|"]
    for name, way in ways(network, ACCURACY_FACTOR).items():
        numbers = evaluate.summary(*evaluate.score(predictor(way, ACCURACY_FACTOR), pairs))
        lines.append(
            f"| {name} | {numbers['miou']:.2f} | {numbers['boundary_iou']:.3f} | {numbers['mad_band']:.4f} |"
        )
        print(lines[-1], flush=True)
    lines += ["", "| milliseconds | 2048x1152 | 4096x2304 |", "|---|---|---|"]
    columns = [milliseconds(ways(network, factor), factor, options.runs) for factor in TIMED_FACTORS]
    lines += [f"| {name} | {columns[0][name]:.0f} | {columns[1][name]:.0f} |" for name in columns[0]]
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    if options.save:
        (RESULTS / "sparse-cpu.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

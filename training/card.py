"""The model card: what a model is, what it learnt from, how well it does, and what one may do with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import augment, checkpoint, losses, networks, sets

PSEUDO = "**pseudo-labels**: soft mattes that RobustVideoMatting's program put out"
# What the sets are and where their labels come from.
SETS = {
    "portraits-train": "selfies, portraits, upper bodies (PicsArt hackathon set); masks by hand",
    "fashion-train": "full-body street fashion (bearpaw/clothing-co-parsing, Apache-2.0); masks by hand",
    "people-train": (
        "pedestrians, groups, portraits (VikramShenoy97/Human-Segmentation-Dataset); automatic masks, "
        "some with holes or missed people"
    ),
    "studio-train": (
        "upper bodies before a studio wall (VITON parses); automatic masks; only cut out and put before "
        "other backgrounds"
    ),
    "video-frames": (
        "frames of demonstration clips (LivePortrait, SadTalker, video-retalking, SAM 2, Intel "
        f"sample-videos and others); {PSEUDO}"
    ),
    "fashion-soft": f"the unlabelled half of the fashion set; {PSEUDO}",
    "portraits-unlabelled": "more of what portraits-train holds, without masks",
    "portraits-pseudo": (
        "portraits-unlabelled, labelled by an earlier version of this network where that was sure "
        "(`training.pseudo`)"
    ),
    "portraits-blend": (
        "portraits-unlabelled; **pseudo-labels**: the mean of earlier versions of these networks and of what "
        "MediaPipe's selfie segmentation put out (`training.pseudo --also`)"
    ),
    "backgrounds": (
        "rooms, houses, streets, landscapes (house photos, Urban100, SUN Hays 80, COCO128); nobody in them"
    ),
}
VALIDATION = "portraits-val"
# Programs that labelled sets.
LABELLERS = {
    "RobustVideoMatting, a GPL-3.0 program": frozenset(("video-frames", "fashion-soft")),
    "MediaPipe's selfie segmentation, a network under Apache-2.0": frozenset(("portraits-blend",)),
}

TEMPLATE = """\
# {name}

BANet with {channels} channels{context} ({parameters:,} parameters, detail stride {detail_stride},
T = {temperature:g}): a soft matte of the people in a picture, one picture at a time. From "Boundary-Aware
Network for Fast and High-Accuracy Portrait Segmentation" (Chen, Qi, Shen); this is a new implementation
with weights of its own, and reproduces none of the paper's figures.

Weights: `{name}.safetensors`, {stored}: the averaged (EMA) weights after {iteration} of {iterations}
iterations. Written, together with this card, by `python -m training.export CHECKPOINT --name {name}{option}`.

## Accuracy

{pictures} pictures with hand-made masks that were never trained on (`portraits-val`). mIoU counts the
pixels of all pictures together; the other columns are means over pictures. Boundary IoU after Cheng
et al. 2021 (2 % of the diagonal), MAD and MSE of mattes in 0..1. Computed in float32 on a CPU.

| what | size | mIoU % | mIoU per picture % | boundary IoU | MAD | MSE |
|---|---|---|---|---|---|---|
{measured}

```
{commands}
```

## What it learnt from

| set | share | what |
|---|---|---|
{sets}
{ancestry}
Where people are cut out, they are put before pictures of `backgrounds`.

## Recipe

{recipe}

## Use and limits

Meant for taking people out of the background of webcam pictures, talking heads and portraits. Held objects
count as person, as in the hand-made masks. Expect errors on several or small people, unusual poses, crowds,
strong back light, and clothes that look like the room. Hair is softer than it is. Single pictures are judged
above, not steadiness over time. It knows nothing of who is in a picture, and must not be used to decide
anything about a person. How well it does for different groups of people has not been measured.

## Rights

The pictures it learnt from come from the web through public repositories. The rights of their
photographers are mostly unstated: they were used as research data, and none of them is in this project.
Whoever uses the weights beyond research should judge for themselves whether that suffices.{pseudo}
"""
PSEUDO_RIGHTS = """

The mattes of {sets} are pseudo-labels: output of {program}.
None of its code or weights is here."""


@dataclass(frozen=True)
class Measurement:
    """What ``training.evaluate`` found on the validation set."""

    size: int
    product: bool  # Matter.alpha, not the network alone
    pictures: int
    numbers: Mapping[str, float]

    def row(self) -> str:
        n = self.numbers
        what = "the product (`Matter.alpha`)" if self.product else "the network alone"
        return (
            f"| {what} | {self.size} | {n['miou']:.2f} | {n['miou_per_picture']:.2f} "
            f"| {n['boundary_iou']:.3f} | {n['mad']:.4f} | {n['mse']:.4f} |"
        )

    def command(self, name: str) -> str:
        product = " --product" if self.product else ""
        return (
            f"python -m training.evaluate --model {name} --data ../shared/data/{VALIDATION}.tar "
            f"--size {self.size}{product}"
        )


def text(name: str, state: checkpoint.State, measured: Sequence[Measurement], *, half: bool = False) -> str:
    """The card of a checkpoint's averaged weights, in Markdown."""
    config = state["config"]
    blocks = config["context"]
    return TEMPLATE.format(
        name=name,
        stored="kernels float16, the rest float32" if half else "float32",
        option=" --half" if half else "",
        **{key: config[key] for key in ("channels", "detail_stride", "temperature", "iterations")},
        context=f" and {blocks} context blocks at 1/32 and at 1/16 each" if blocks else "",
        iteration=state["iteration"],
        parameters=networks.parameters(networks.build(config)),
        pictures=measured[0].pictures,
        measured="\n".join(m.row() for m in measured),
        commands="\n".join(m.command(name) for m in measured),
        sets=set_rows(config["sets"]),
        ancestry=ancestry(state),
        recipe=recipe(config),
        pseudo="".join(pseudo_rights(checkpoint.sets_seen(state))),
    )


def pseudo_rights(seen: Sequence[str]) -> Iterator[str]:
    for program, labelled in LABELLERS.items():
        names = [f"`{name}`" for name in seen if sets.unsoftened(name) in labelled]
        if names:
            yield PSEUDO_RIGHTS.format(sets=" and ".join(names), program=program)


def set_rows(shares: Mapping[str, float]) -> str:
    total = sum(shares.values())
    return "\n".join(
        f"| {name} | {100 * share / total:.0f} % | {describe(name)} |" for name, share in shares.items()
    )


def describe(name: str) -> str:
    original = sets.unsoftened(name)
    found = SETS.get(
        original, "not described in the card's sources: say what it is and whose before shipping"
    )
    return found if name == original else f"{found}; outlines made soft (`training.soften`)"


def ancestry(state: checkpoint.State) -> str:
    """The runs it started from, or that are mixed into it (``training.average``), and what they had seen."""
    lines = []
    for a in state.get("ancestors", []):
        seen = ", ".join(a["sets"]) or "sets unknown"
        start = Path(a["init"]).name
        how = "To it was added what was learnt up to" if a.get("added") else "It started from the weights of"
        if a.get("averaged"):
            how = "It is averaged with the weights of"
        lines.append(f"{how} `{start}` (iteration {a['iteration']}; {seen}).")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def recipe(c: Mapping[str, Any]) -> str:
    sides = f"{c['size_start']}^2"
    if c["size_start"] != c["size_end"]:
        sides += f" growing to {c['size_end']}^2 (full size for the last fifth)"
    shapes = augment.ASPECTS[c["augmentation"]]
    aspects = " to ".join(f"{a:g}" for a in sorted({min(shapes), max(shapes)}))
    cut = f"gradients cut at length {c['largest_gradient']:g}" if c["largest_gradient"] else "no gradient cut"
    average = f"averaged weights with decay {c['ema_decay']:g}" if c["ema_decay"] else "the last weights"
    return f"""\
- Crops of {sides} pixels, aspects {aspects}, batches of {c["batch"]}.
- Augmentation: {augmentation(c)}
- Losses: {losses_of(c)}
- {optimiser(c)}; one cycle to {c["max_rate"]:g}: cosine up for the first {100 * c["warm_up"]:.0f} %, cosine
  down after; {cut}; {average}; {c["precision"]}.
- {c["iterations"]} iterations, seed {c["seed"]}."""


def augmentation(c: Mapping[str, Any]) -> str:
    if c["augmentation"] == "paper":
        return "the paper's: rotation up to 45 degrees, flip, lightness 0.7 to 1.3."
    chances = ", ".join(
        f"{name} {percent(c['composites'] * augment.composite_chance(name))}"
        for name in c["sets"]
        if augment.composite_chance(name)
    )
    wide = f"; in wide crops {100 * augment.WIDE_COMPOSITE_CHANCE:.0f} % at least" if chances else ""
    occluders = ""
    if chances and c["occluders"]:
        table, pattern = (
            percent(c["occluders"] * chance) for chance in (augment.TABLE_CHANCE, augment.PATTERN_CHANCE)
        )
        occluders = f"\n- In the same sets: a table before people {table}, a pattern on them {pattern}."
    groups = f"\n  {percent(c['groups'])} of those are one of a group." if chances and c["groups"] else ""
    return f"""scale, rotation (mostly a few degrees, up to 45), shift, flip; lightness 0.7 to 1.3,
  contrast, gamma, colour cast, saturation, blur, motion blur, sensor noise, JPEG.
- People cut out and put before other backgrounds: {chances or "none"}{wide}.{groups}{occluders}"""


def percent(chance: float) -> str:
    return f"{min(100, 100 * chance):.0f} %"


def losses_of(c: Mapping[str, Any]) -> str:
    refine = (
        f"{c['refine_weight']:g} x the refine loss (eq. 5-7) in the boundary area."
        if c["refine_weight"]
        else "The paper's refine loss (eq. 5-7), and with\n  it stage two, is not in it."
    )
    overlap = (
        f"\n  + {c['overlap_weight']:g} x what the matte lacks in intersection over union (Jaccard)"
        if c["overlap_weight"]
        else ""
    )
    return f"""{losses.SEGMENTATION_WEIGHT} x binary cross-entropy of the matte (eq. 3) + \
{losses.BOUNDARY_WEIGHT} x that of the boundary
  attention map (eq. 4) against Canny edges dilated by eq. (1){overlap}. {refine}"""


def optimiser(c: Mapping[str, Any]) -> str:
    where = "kernels" if c["decay"] == "kernels" else "everything"
    decay = f"weight decay {c['weight_decay']:g} on {where}"
    if c["optimiser"] == "sgd":
        return f"SGD with momentum {c['momentum']:g}, {decay}"
    names = {"adamw": "AdamW", "muon": "Muon (Adam where there are no large kernels)"}
    return f"{names[c['optimiser']]}, {decay}, Adam's beta 1 between 0.95 and 0.85 against the rate"

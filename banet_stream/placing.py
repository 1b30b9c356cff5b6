"""Where frames are converted and composited: on the GPU beside the network, so that they go there once and
come back finished, or on the CPU.

It has run on no GPU yet. So nothing rests on it: before the first frame the operators work on a small one
here and there, and where they differ or fail, frames stay on the CPU, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from . import backends, ops
from .errors import MatteError, first_line

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
# How much two devices may differ: in steps of 8 bits, in alpha, in normalised input.
STEPS, SHARE = 2, 0.02
TRIAL_SIZE, TRIAL_MATTE = (96, 160), (48, 80)
Planes = list[Tensor]


@cache
def place_beside(network: torch.device) -> torch.device:
    """Where to keep frames whose network runs on that device: there, if the operators do there what they do
    on the CPU, or on the CPU."""
    if network == CPU:
        return CPU
    trouble = what_hinders(network)
    if trouble:
        log.warning("frames are composited on the CPU: %s", trouble)
        return CPU
    return network


@contextmanager
def failing_on(device: torch.device) -> Iterator[None]:
    """A GPU's failure, as of full memory, becomes an error that says what to do.

    Raises:
        MatteError: instead of RuntimeError, but on the CPU.
    """
    try:
        yield
    except RuntimeError as error:
        if device == CPU:
            raise
        raise MatteError(f"work on {device} failed ({first_line(error)}); try --device cpu") from error


# --- the trial -----------------------------------------------------------------------------------


def what_hinders(device: torch.device) -> str:
    """Why frames can't be composited there; empty: nothing."""
    slow = [name for name in TRIALS if not backends.has_kernel(name, device)]
    if slow:  # their references would take longer there than the kernels here
        return f"there are no kernels on {device} for {', '.join(slow)}"
    try:
        here, there = trial_frame(CPU), trial_frame(device)
        different = [name for name, trial in TRIALS.items() if not agree(trial(*here), trial(*there))]
    except RuntimeError as error:
        return f"{device} fails ({first_line(error)})"
    return f"{device} gives something else for {', '.join(different)}" if different else ""


def agree(here: list[Tensor], there: list[Tensor]) -> bool:
    """Whether results of one operator are alike: samples, or floats."""
    for one, other in zip(here, there, strict=True):
        allowed = SHARE if one.is_floating_point() else STEPS
        if not float((one.float() - other.to(CPU).float()).abs().max()) <= allowed:
            return False
    return True


def trial_frame(device: torch.device) -> tuple[Planes, Tensor, Planes]:
    """Planes of a frame in 4:2:0, a soft-edged matte, and planes of a background, all full of detail."""
    random = torch.Generator().manual_seed(1)
    height, width = TRIAL_SIZE
    shapes = [(height, width), *[(height // 2, width // 2)] * 2]
    front, behind = (
        [torch.randint(16, 236, shape, dtype=torch.uint8, generator=random) for shape in shapes]
        for _ in range(2)
    )
    y, x = (torch.linspace(-1, 1, side) for side in TRIAL_MATTE)
    alpha = torch.sigmoid(8 * (0.6 - torch.hypot(y[:, None], x[None])))
    return [p.to(device) for p in front], alpha.to(device), [p.to(device) for p in behind]


# What a frame goes through that is not the network, by operator, on trial_frame's.
TRIALS: dict[str, Callable[[Planes, Tensor, Planes], list[Tensor]]] = {
    "frame_to_input": lambda front, alpha, behind: [
        ops.frame_to_input(front, size=TRIAL_MATTE, matrix="bt709", full_range=False)
    ],
    "guided_filter": lambda front, alpha, behind: [
        ops.guided_filter(alpha, torch.stack([alpha + 1e-3 * front[p].float() for p in (1, 2, 1)]))
    ],
    "steady_alpha": lambda front, alpha, behind: [
        ops.steady_alpha(alpha, alpha.roll(5, 1), certain=0.25, steady=0.35)
    ],
    "masked_blur": lambda front, alpha, behind: ops.masked_blur(front, alpha, sigma=3.0),
    "composite": lambda front, alpha, behind: ops.composite(front, alpha, behind, light_wrap=0.5),
    "upsample_alpha": lambda front, alpha, behind: [ops.upsample_alpha(alpha, front[0])],
}

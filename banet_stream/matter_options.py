"""The options that make a Matter, for every command that has one."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch

from .engines import ENGINES, INT8, PRECISIONS
from .errors import UsageError
from .matting import DEFAULT_MODEL, DEFAULT_QUALITY, QUALITIES, Matter


def add_model_option(group: Any) -> None:
    """``group``: a parser or one of its groups."""
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"banet64, banet512 (more accurate, slower) or a .safetensors file; default: {DEFAULT_MODEL}",
    )


def add_matter_options(group: Any) -> None:
    """``group``: a parser or one of its groups."""
    add, sizes = group.add_argument, ", ".join(str(point.size) for point in QUALITIES.values())
    add_model_option(group)
    add(
        "--quality",
        choices=tuple(QUALITIES),
        default=DEFAULT_QUALITY,
        help=f"{', '.join(QUALITIES)} (looks at every frame mirrored, too); default: {DEFAULT_QUALITY}",
    )
    add(
        "--size",
        type=int,
        help="width at which the network sees 16:9 frames; others get as many pixels; default: by quality, "
        + sizes,
    )
    add(
        "--regions",
        choices=("auto", "off"),
        default="auto",
        help="auto: where people are small in the frame, look closer at where they are; off: always at all "
        "of it; default: auto",
    )
    add("--device", default="auto", help="auto, cuda, cuda:N or cpu; default: auto")
    add("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)}, {INT8}; default: auto")
    add("--engine", default="auto", help=f"what runs the network: {', '.join(ENGINES)}; default: auto")
    add("--threads", type=int, default=0, help="for network and operators; default: 0, all cores")


def make_matter(options: argparse.Namespace) -> Matter:
    """The Matter that the options describe.

    Raises:
        UsageError, DeviceError, WeightsError: when it can't be had.
    """
    cores = os.cpu_count() or 1
    if not 0 <= options.threads <= cores:  # far more than cores end in a crash of OpenMP's
        raise UsageError(
            f"--threads {options.threads}: must be between 1 and {cores}, this machine's cores, or 0 for all"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    point = QUALITIES[options.quality]
    try:
        return Matter(
            options.model,
            device=options.device,
            precision=options.precision,
            size=point.size if options.size is None else options.size,
            mirrored=point.mirrored,
            regions=options.regions == "auto",
            engine=options.engine,
            threads=options.threads,
        )
    except ValueError as error:
        raise UsageError(f"--size {options.size}: {error}") from error

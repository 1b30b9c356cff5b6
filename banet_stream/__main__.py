"""The command's entry point: ``banet-stream`` and ``python -m banet_stream``."""

from __future__ import annotations

import gc
import sys

from .leaving import leaving_at_once


def main() -> None:
    """Imports PyTorch and all the rest, which takes a second or two, and runs the command."""
    # What is imported stays. Searching it for garbage takes a sixth of a second meanwhile, a tenth in the
    # middle of a video, and half a second at the end.
    gc.disable()
    with leaving_at_once(say_interrupted):
        from .cli import main as command  # noqa: PLC0415
    gc.freeze()
    gc.enable()
    command()


def say_interrupted() -> None:
    if sys.stderr is not None:
        print("\nbanet-stream: interrupted", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

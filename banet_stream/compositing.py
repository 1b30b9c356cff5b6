"""Frames and their mattes to frames before another background."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from . import ops
from .background import Background, Transparent
from .cutout import cut_out
from .frame import AnyFrame, Frame, Packet
from .matting import Matted, MatteStream
from .placing import CPU, failing_on
from .timings import Timings


def compose(
    items: Iterable[Matted[Frame] | Packet],
    background: Background,
    timings: Timings,
    *,
    keep_alpha: bool = False,
    watch: Callable[[Frame, Tensor], None] | None = None,
) -> Iterator[Frame | Packet]:
    """Every frame with its subject before ``background``; packets pass. The pipeline's third stage.

    ``keep_alpha``: frames carry their matte at full size; so they do, with the subject's own colours, where
    the background is Transparent. ``watch`` is shown every frame with its matte at network size.
    """
    for item in items:
        if isinstance(item, Packet):
            yield item
            continue
        alpha = alpha_of(item, timings)
        if watch:
            watch(item.frame, alpha.cpu())
        yield put_before(item.frame, alpha, background, timings, keep_alpha=keep_alpha)


def matte_frame(frame: AnyFrame, stream: MatteStream, background: Background) -> AnyFrame:
    """One frame with its subject before ``background``, for live work."""
    matted = stream.matted(frame)
    return put_before(matted.frame, alpha_of(matted, stream.timings), background, stream.timings)


def alpha_of(matted: Matted[AnyFrame], timings: Timings) -> Tensor:
    with timings("mend"):
        return matted.alpha()


def put_before(
    frame: AnyFrame, alpha: Tensor, background: Background, timings: Timings, *, keep_alpha: bool = False
) -> AnyFrame:
    """The frame with its subject before ``background``; ``keep_alpha`` as of :func:`compose`.

    It works where frame and alpha lie; the result lies on the CPU, where encoders take it.

    Raises:
        MatteError: when a GPU fails.
    """
    with failing_on(frame.device):
        if isinstance(background, Transparent):
            with timings("composite"):
                return cut_out(frame, alpha).to(CPU)
        with timings("background"):
            behind = background.planes(frame, alpha)
        with timings("composite"):
            planes = ops.composite(
                frame.planes,
                alpha,
                behind,
                depth=frame.format.depth,
                subsampling=frame.format.subsampling,
                light_wrap=background.light_wrap,
            )
            done = frame.with_planes(planes).to(CPU)
        if keep_alpha:
            with timings("alpha"):
                full = ops.upsample_alpha(alpha, frame.planes[0], depth=frame.format.depth)
            done = replace(done, alpha=full.to(CPU))
        return done

"""What viewers see instead of a matted frame: a slate, or the frame blurred past recognition."""

from __future__ import annotations

import logging

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from .background import Background, Picture, Still, open_background
from .errors import BackgroundError
from .frame import AnyFrame

log = logging.getLogger(__name__)

COVERS = ("blur", "slate")
# A full blur leaves so many patches along the shorter side: a room is colours, no more.
PATCHES = 9
SLATE_SIZE = (1280, 720)
SLATE_COLOUR, SLATE_TEXT, SLATE_TEXT_COLOUR = (38, 42, 48), "No picture at the moment", (200, 204, 210)


class Cover:
    """Hides frames; never raises.

    Args:
        choice: ``blur`` or ``slate``: what ``hide`` makes of a frame.
        slate: what the slate shows; None draws one.
    """

    def __init__(self, choice: str, slate: Background | None = None) -> None:
        self.choice = choice
        self._slate = slate or drawn_slate()

    def hide(self, frame: AnyFrame) -> AnyFrame:
        """A frame of the same shape and time from which nothing of its room can be told."""
        if self.choice == "blur":
            try:
                return frame.with_planes([full_blur(p) for p in frame.planes])
            except Exception as error:  # whatever it is, out of memory for one, the frame must not show
                log.warning("a frame could not be blurred (%s): the slate covers it", error)
        return self.slate(frame)

    def slate(self, frame: AnyFrame) -> AnyFrame:
        """The slate in the shape and at the time of ``frame``."""
        try:
            return frame.with_planes(self._slate.planes(frame, torch.zeros(1, 1)))
        except Exception as error:  # as above
            log.warning("the slate can't be shown (%s): grey covers the frame", error)
            grey = 1 << (frame.format.depth - 1)
            return frame.with_planes([torch.full_like(p, grey) for p in frame.planes])


def full_blur(plane: Tensor) -> Tensor:
    """[H, W] samples averaged to PATCHES along the shorter side, and drawn smooth again."""
    height, width = plane.shape
    cell = max(1.0, min(height, width) / PATCHES)
    cells = (max(1, round(height / cell)), max(1, round(width / cell)))
    small = F.adaptive_avg_pool2d(plane[None, None].float(), cells)
    smooth = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return smooth[0, 0].round().to(plane.dtype)


def open_slate(text: str) -> Background:
    """What ``--slate`` names: an image or a colour, nothing in which the room could show.

    Raises:
        BackgroundError: when it is neither or can't be read.
    """
    try:
        slate = open_background(text)
    except BackgroundError as error:
        raise BackgroundError(f"--slate {error}") from error
    if not isinstance(slate, Still):
        slate.close()
        raise BackgroundError(f"--slate {text}: must be an image or a colour")
    return slate


def drawn_slate() -> Background:
    """A plain card with one line of text."""
    card = Image.new("RGB", SLATE_SIZE, SLATE_COLOUR)
    font = ImageFont.load_default(SLATE_SIZE[1] / 15)
    centre = tuple(np.array(SLATE_SIZE) / 2)
    ImageDraw.Draw(card).text(centre, SLATE_TEXT, SLATE_TEXT_COLOUR, font, anchor="mm")
    return Picture(card)

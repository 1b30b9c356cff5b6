"""``--alpha-out``: the matte as a video or pictures of its own, beside any output."""

from __future__ import annotations

from dataclasses import replace

import torch

from .encode import Sink
from .errors import OutputError
from .frame import BT709, PIXEL_FORMATS, Colour, Frame, Packet
from .output import Output
from .reference import YuvScale

# Limited range: players and editors that do not read the tag take it for that.
GREY = Colour("bt709", False, BT709, BT709, BT709)


class MatteFile(Sink):
    """The frames' alpha as grey video: black is background, white subject. No sound."""

    def open(self, first: Frame) -> None:
        """See Output."""
        super().open(grey_frame(first))

    def write(self, item: Frame | Packet) -> None:
        """See Output."""
        if isinstance(item, Frame):
            super().write(grey_frame(item))


class Beside(Output):
    """Two outputs of one run: the video, and its matte."""

    def __init__(self, main: Output, matte: Output, *, main_alpha: bool) -> None:
        super().__init__()
        self.main, self.matte, self._main_alpha = main, matte, main_alpha
        self.path, self.source = main.path, main.source

    def open(self, first: Frame) -> None:
        """See Output."""
        self.main.announce = self.matte.announce = self.announce
        self.main.open(self._for_main(first))
        self.part = self.main.part
        self.matte.open(first)
        self.encoder = self.main.encoder

    def write(self, item: Frame | Packet) -> None:
        """See Output."""
        self.main.write(self._for_main(item) if isinstance(item, Frame) else item)
        self.matte.write(item)
        self.frames = self.main.frames

    def flush(self) -> None:
        """See Output."""
        self.main.flush()
        self.matte.flush()

    def finish(self) -> None:
        """See Output."""
        try:
            self.matte.finish()
        except OutputError as error:
            if self.main.part is None:
                raise
            raise OutputError(f"{error}, that of {self.main.path} in {self.main.part}") from error
        self.main.finish()
        self.notices += self.main.notices + self.matte.notices

    def abandon(self, *, keep: bool) -> None:
        """See Output."""
        self.matte.abandon(keep=keep)  # its pictures lie in a folder that the other may have made
        self.main.abandon(keep=keep)
        self.part = self.main.part

    def _for_main(self, frame: Frame) -> Frame:
        return frame if self._main_alpha else replace(frame, alpha=None)


def grey_frame(frame: Frame) -> Frame:
    """The frame's alpha as a grey picture of the same size, depth and time."""
    assert frame.alpha is not None
    depth = frame.format.depth
    layout = next(f for f in PIXEL_FORMATS.values() if f.depth == depth and f.subsampling == (2, 2))
    scale = YuvScale.of(GREY.full_range, depth)
    dtype = torch.uint8 if depth == 8 else torch.int16
    luma = (frame.alpha * scale.luma + scale.black + 0.5).to(dtype)
    chroma = torch.full((-(-frame.height // 2), -(-frame.width // 2)), int(scale.grey), dtype=dtype)
    return replace(frame, planes=[luma, chroma, chroma], format=layout, colour=GREY, alpha=None, light=None)

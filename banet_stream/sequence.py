"""Numbered PNG files: the output that every editor reads, with or without alpha, in 8 or 16 bits."""

from __future__ import annotations

import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import ops
from .codecs import EncodeOptions
from .errors import OutputError
from .frame import Frame, Packet
from .numbering import check_pattern, makes, numbered
from .output import Output, check_no_rate, check_place, describe_size, free_part

if TYPE_CHECKING:
    from .decode import Source
    from .photo import Photo

FIRST_NUMBER = 1  # as FFmpeg counts


class Sequence(Output):
    """``folder/%06d.png``, written to a part folder inside it; made if it is missing.

    Args:
        path: the pattern.
        source: whose length is known, perhaps.
        alpha: RGBA, straight. matte: grey, alpha alone; as exact as the file's bits.
    """

    def __init__(
        self,
        path: Path,
        source: Source | Photo,
        options: EncodeOptions,
        *,
        alpha: bool = False,
        matte: bool = False,
    ) -> None:
        super().__init__()
        self.path, self.source, self.options = path, source, options
        self.encoder = "png"
        self._alpha, self._matte = alpha, matte
        self._made_folder = False
        check_pattern(path)
        check_no_rate(path, options)
        if path.parent.is_dir():
            check_place(path, overwrite=True)
            taken = self._taken()
            if taken and not options.overwrite:
                raise OutputError(f"{taken[0]}: exists already; use --overwrite to replace such pictures")
        else:
            check_place(path.parent, overwrite=True)

    def open(self, first: Frame) -> None:
        """See Output."""
        count = self.source.expected_frames
        if count:
            where = self.path if self.path.parent.is_dir() else self.path.parent
            size = len(self._encode(first)) * count
            how = f"{'straight alpha; ' if self._alpha else ''}png, by the first one"
            self.announce(describe_size(where, size, count, how))
        if not self.path.parent.is_dir():
            self.path.parent.mkdir()
            self._made_folder = True
        self.part = free_part(self.path.with_name("pictures"), folder=True)
        if not self._matte and self.source.passed:
            self.notices.append("pictures hold no sound or subtitles: left out")

    def write(self, item: Frame | Packet) -> None:
        """See Output."""
        if isinstance(item, Packet):
            return
        assert self.part is not None
        name = numbered(self.path.name, FIRST_NUMBER + self.frames)
        (self.part / name).write_bytes(self._encode(item))
        self.frames += 1

    def flush(self) -> None:
        """See Output."""

    def finish(self) -> None:
        """See Output."""
        assert self.part is not None
        moved = 0
        try:
            taken = self._taken()
            if taken and not self.options.overwrite:
                raise OutputError(f"{taken[0]}: came to be meanwhile; the result is in {self.part}")
            for old in taken:  # of an earlier, perhaps longer run
                old.unlink()
            for picture in sorted(self.part.iterdir()):
                picture.replace(self.path.parent / picture.name)
                moved += 1
        except OSError as error:
            what = "the rest of the result" if moved else "the result"
            raise OutputError(
                f"{self.path}: can't be written: {error.strerror}; {what} is in {self.part}"
            ) from error
        with suppress(OSError):  # all is in its place, whatever else lies there by now
            self.part.rmdir()

    def abandon(self, *, keep: bool) -> None:
        """See Output."""
        if self.part is not None and not (keep and self.frames):
            shutil.rmtree(self.part, ignore_errors=True)
            self.part = None
            if self._made_folder:
                with suppress(OSError):  # something else lies there by now
                    self.path.parent.rmdir()

    def _taken(self) -> list[Path]:
        """Pictures of these names."""
        return [path for path in self.path.parent.iterdir() if makes(self.path.name, path.name)]

    def _encode(self, frame: Frame) -> bytes:
        bits = 8 if frame.format.depth == 8 else 16
        if self._matte:
            assert frame.alpha is not None
            return png(upright(quantise(frame.alpha, bits), frame), "gray", bits, frame)
        rgb = rgb_samples(frame, bits)
        if not self._alpha:
            return png(rgb, "rgb", bits, frame)
        assert frame.alpha is not None
        alpha = upright(quantise(frame.alpha, bits), frame)
        return png(np.dstack([rgb, alpha]), "rgba", bits, frame)


def rgb_samples(frame: Frame, bits: int) -> NDArray[np.generic]:
    """[H, W, 3] uint8 or uint16, turned upright."""
    rgb = ops.frame_to_input(
        frame.planes,
        size=(frame.height, frame.width),
        matrix=frame.colour.matrix,
        full_range=frame.colour.full_range,
        depth=frame.format.depth,
    )
    return upright(quantise(rgb[0].permute(1, 2, 0), bits), frame)


def quantise(values: Tensor, bits: int) -> NDArray[np.generic]:
    """0..1 as unsigned integers."""
    samples = (values.cpu() * (2**bits - 1) + 0.5).to(torch.uint8 if bits == 8 else torch.int32).numpy()
    whole: NDArray[np.generic] = samples.astype(np.uint8 if bits == 8 else np.uint16)
    return whole


def upright(samples: NDArray[np.generic], frame: Frame) -> NDArray[np.generic]:
    return np.ascontiguousarray(np.rot90(samples, frame.rotation // 90))


def png(samples: NDArray[np.generic], kind: str, bits: int, frame: Frame) -> bytes:
    """A PNG file, by FFmpeg, which unlike Pillow writes 16 bits too."""
    name = {
        ("gray", 8): "gray",
        ("gray", 16): "gray16be",
        ("rgb", 8): "rgb24",
        ("rgb", 16): "rgb48be",
        ("rgba", 8): "rgba",
        ("rgba", 16): "rgba64be",
    }[kind, bits]
    if bits == 16:
        samples = samples.astype(">u2")
    height, width = samples.shape[:2]
    picture = av.VideoFrame(width, height, name)
    rows = np.ascontiguousarray(samples).reshape(height, -1).view(np.uint8)
    stride = picture.planes[0].line_size
    target = np.frombuffer(picture.planes[0], np.uint8).reshape(height, stride)  # type: ignore[call-overload]
    target[:, : rows.shape[1]] = rows
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, name
    context.time_base = Fraction(1, 25)
    aspect = frame.sample_aspect_ratio
    context.sample_aspect_ratio = 1 / aspect if frame.rotation in (90, 270) else aspect
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])

"""Frames to mattes: network input, engine, temporal smoothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Generic, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from . import ops
from .engines import load_engine
from .errors import MatteError
from .frame import AnyFrame, Frame, Packet
from .hdr import for_network, is_hdr
from .network import COARSEST_STRIDE, MEAN, STD
from .placing import failing_on, place_beside
from .regions import CHANGE, Gaze, Look, See
from .timings import Timings

DEFAULT_MODEL = "banet64"


class WorkingPoint(NamedTuple):
    """At which ``size`` the network sees frames, and whether it looks twice, at the mirrored frame too."""

    size: int
    mirrored: bool


# benchmarks/results/pareto-cpu.md. Larger than at 448, people who fill a frame lose accuracy: they are larger
# then than most that it was trained on.
QUALITIES = {
    "fast": WorkingPoint(384, mirrored=False),
    "balanced": WorkingPoint(448, mirrored=False),
    "best": WorkingPoint(448, mirrored=True),
}
DEFAULT_QUALITY = "balanced"
DEFAULT_SIZE = QUALITIES[DEFAULT_QUALITY].size
SMALLEST_SIZE, LARGEST_SIZE = 64, 4096

# The network sees at least as many pixels as a 16:9 frame of this width has (or ``size``).
SMALLEST_SEEN = 256
WIDE = Fraction(16, 9)

# Smoothing: where successive mattes differ by CERTAIN or more, the new one is taken as it is; where they
# agree, only STEADY of the difference is.
CERTAIN, STEADY = 0.25, 0.35
# A mean change of the normalised picture above this (a tenth of black to white) is a cut, or motion so fast
# that there is nothing to steady.
SCENE_CUT = 0.45
# Motion is looked for in patches of so many pixels of what the network sees of a whole picture: a webcam's
# noise is averaged away.
PATCH = 8
# The motion gate: a patch whose mean changes by ``regions.CHANGE`` moves. After so many frames in a row the
# network looks anyway.
MOST_RESTS = 30


class Matter:
    """Takes people out of pictures.

    Args:
        model: ``banet64``, ``banet512`` (more accurate, slower), or the path of a .safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``float32``, ``bfloat16``, ``float16`` (CUDA only) or ``int8`` (OpenVINO only;
            ``auto`` there for models that have it).
        engine: what runs the network: ``auto`` (on a CPU OpenVINO), ``openvino`` or ``torch``.
        threads: for the network on a CPU; 0: as many as there are cores.
        size: width in pixels at which the network sees a 16:9 picture; others get as many pixels
            (``network_size``).
        mirrored: of videos, too, the network sees every frame twice, as it is and mirrored, and the mean
            counts: more accurate, and twice its time. Single pictures are always seen so.
        regions: where people are small in a picture the network looks closer at the region they are in
            (``regions``), with no more pixels; else always at all of it.

    Raises:
        WeightsError, DeviceError, ValueError: when one of these can't be had.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        size: int = DEFAULT_SIZE,
        engine: str = "auto",
        threads: int = 0,
        mirrored: bool = False,
        regions: bool = True,
    ) -> None:
        self.model, self.size, self.mirrored, self.regions = model, checked_size(size), mirrored, regions
        self.engine = load_engine(model, device=device, precision=precision, engine=engine, threads=threads)

    def at_size(self, size: int) -> Matter:
        """The same network, loaded once, seeing pictures at another ``size``."""
        other = copy.copy(self)
        other.size = checked_size(size)
        return other

    @property
    def description(self) -> str:
        """What really runs, for people."""
        return self._described(mirrored=self.mirrored)

    def _described(self, *, mirrored: bool) -> str:
        engine = self.engine
        looks = (f"size {self.size}", *["mirrored too"] * mirrored, *["no regions"] * (not self.regions))
        return f"{self.model} on {engine.name} {engine.device}, {engine.precision}, {', '.join(looks)}"

    def alpha(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The matte of one picture, without memory of earlier ones.

        Args:
            rgb: uint8 [H, W, 3], RGB.

        Returns:
            float32 [H, W] in 0..1: how much of each pixel is person.
        """
        return self.stream(mirrored=True).alpha(rgb)

    def stream(self, *, mirrored: bool | None = None) -> MatteStream:
        """For the frames of one video in order: mattes with memory, steadier than single ones.

        ``mirrored``: in place of the Matter's own.
        """
        return MatteStream(self, mirrored=mirrored)

    def _matte(self, image: Tensor, *, mirrored: bool) -> Tensor:
        """The matte [1, 1, h, w] of what ``_see`` gives: the engine's, following the picture's edges."""
        alpha = mean_of_both(self.engine(with_mirrored(image))) if mirrored else self.engine(image)
        if not math.isfinite(alpha.sum()):  # one pass, where isfinite() of every value takes a millisecond
            raise MatteError("the matte holds no numbers")
        return following(alpha, image)


def following(alpha: Tensor, image: Tensor) -> Tensor:
    """An engine's matte [1, 1, h, w], following the edges of the image [1, 3, h, w], where that lies."""
    return ops.guided_filter(alpha[0, 0].to(image.device), image[0])[None, None]


def with_mirrored(image: Tensor) -> Tensor:
    """An image [1, 3, h, w] and its mirror image [2, 3, h, w]."""
    return torch.cat([image, image.flip(3)])


def mean_of_both(alphas: Tensor) -> Tensor:
    """The mattes [2, 1, h, w] of these -> their mean [1, 1, h, w], as the image lies."""
    return (alphas[:1] + alphas[1:].flip(3)) / 2


def checked_size(size: int) -> int:
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ValueError(f"Matter: size must be between {SMALLEST_SIZE} and {LARGEST_SIZE}, got {size}")
    return size


class Matted(NamedTuple, Generic[AnyFrame]):
    """A frame, where it is to be composited (``placing``), and the steadied matte of what was seen of it."""

    frame: AnyFrame
    look: Look

    def alpha(self) -> Tensor:
        """The matte to show, beside the frame and turned as it is coded: [h, w] float32 in 0..1, at the size
        the network saw all of it, or where it saw a region at that scale.

        What is left to do for it takes milliseconds, and nothing that comes later depends on it: the stage
        that composites does it, as matting is the slowest.

        Raises:
            MatteError: when a GPU fails.
        """
        with failing_on(self.frame.device):
            shown = to_show(self.look)
            return torch.rot90(shown, -(self.frame.rotation // 90)).contiguous().to(self.frame.device)


class MatteStream:
    """Mattes of one video's frames, in order. Not for several threads at once.

    Args:
        save_power: the network rests while nothing moves: the last matte, of a picture that looked the same,
            serves again, for at most MOST_RESTS frames in a row.
        mirrored: as of ``Matter.stream``.
    """

    def __init__(
        self,
        matter: Matter,
        timings: Timings | None = None,
        *,
        save_power: bool = False,
        mirrored: bool | None = None,
    ) -> None:
        self.matter = matter
        self.place = place_beside(matter.engine.device)  # of the frames it is given
        self.mirrored = matter.mirrored if mirrored is None else mirrored
        self.timings = timings or Timings()
        self.save_power = save_power
        self.frames = self.rested = 0  # seen, and those of them that the network did not see
        self._gaze: Gaze | None = None
        self._previous: Look | None = None
        self._before: Tensor | None = None  # [1, 3, h/8, w/8]: patches of the last picture, to notice cuts
        self._gate: Tensor | None = None  # and of the last one that the network saw
        self._rests = 0  # in a row

    @property
    def description(self) -> str:
        """See Matter; and where frames are, if not on the CPU."""
        described = self.matter._described(mirrored=self.mirrored)
        return described if self.place.type == "cpu" else f"{described}, frames on {self.place}"

    def reset(self) -> None:
        """Forgets what came before: call it when the next frame does not follow the last."""
        self._gaze = self._previous = self._before = self._gate = None

    def alpha(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Like ``Matter.alpha``, for the next frame."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise ValueError(f"Matter.alpha: rgb must be uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
        picture = torch.from_numpy(np.require(rgb, requirements=("C", "W"))).float() / 255
        planes = ops.rgb_to_planes(picture, matrix="bt709", full_range=True, subsampling=(1, 1))

        def see(size: tuple[int, int]) -> Tensor:
            return ops.frame_to_input(planes, size=size, matrix="bt709", full_range=True, mean=MEAN, std=STD)

        with failing_on(self.matter.engine.device):
            alpha = to_show(self._look(see, rgb.shape[:2]))
        return ops.upsample_alpha(alpha, planes[0]).numpy()

    def matted(self, frame: AnyFrame) -> Matted[AnyFrame]:
        """The next frame, and what its matte is made from.

        Raises:
            MatteError: when the network or a GPU fails.
        """
        with failing_on(self.matter.engine.device):
            with self.timings("to input"):
                there = frame.to(self.place)
            return Matted(there, self._look_at(there))

    def _look_at(self, frame: AnyFrame) -> Look:
        turns = frame.rotation // 90

        def see(size: tuple[int, int]) -> Tensor:
            with self.timings("to input"):
                coded = input_of(frame, size if turns % 2 == 0 else size[::-1])
                return torch.rot90(coded, turns, (2, 3))

        shown = (frame.height, frame.width * float(frame.sample_aspect_ratio))
        return self._look(see, shown if turns % 2 == 0 else shown[::-1])

    def network_alpha(self, frame: Frame) -> Tensor:
        """The matte of the next frame: see ``Matted.alpha``.

        Raises:
            MatteError: when the network or a GPU fails.
        """
        return self.matted(frame).alpha()

    def _look(self, see: See, shape: tuple[float, float]) -> Look:
        """The matte of what the network saw of a picture of that shape, steadied by the one before where both
        agree."""
        self.frames += 1
        size = network_size(*shape, self.matter.size)
        if self._gaze is not None and (self._gaze.shape, self._gaze.size) != (shape, size):
            self.reset()
        if self._gaze is None:
            self._gaze = self._gaze_at(shape, size)
        image = see(self._gaze.region.picture)
        patches = F.adaptive_avg_pool2d(image, (size[0] // PATCH, size[1] // PATCH))
        if self.save_power and self._nothing_moves(patches):
            assert self._previous is not None
            return self._previous
        previous = self._previous
        if self._before is not None and is_cut(self._before, patches):
            previous, self._gaze = None, self._gaze_at(shape, size)
            image = see(size)
        look = self._gaze.follow(image, patches, see)
        if previous is not None:
            with self.timings("network"):
                now, before = look.alpha[0, 0], previous.at(look.region)[0, 0]
                steadied = ops.steady_alpha(now, before, certain=CERTAIN, steady=STEADY)
            look = look._replace(alpha=steadied[None, None])
        self._previous, self._before = look, patches
        return look

    def _gaze_at(self, shape: tuple[float, float], size: tuple[int, int]) -> Gaze:
        def matte(image: Tensor) -> Tensor:
            with self.timings("network"):
                return self.matter._matte(image, mirrored=self.mirrored)

        return Gaze(matte, shape, size, fixed=not self.matter.regions)

    def _nothing_moves(self, patches: Tensor) -> bool:
        """Whether a picture looks everywhere like the last one the network saw. That one, not the frame
        before: slow motion adds up."""
        if self._gate is not None:
            still = float((patches - self._gate).abs().max()) < CHANGE
            if still and self._rests < MOST_RESTS:
                self._rests += 1
                self.rested += 1
                return True
        self._gate, self._rests = patches, 0
        return False


def to_show(look: Look) -> Tensor:
    """The matte [h, w] of the whole picture, on the CPU. There ghosts fade, and they do so last: before
    smoothing, they would come and go."""
    return look.region.paste(mended(look.alpha[0, 0].cpu())[None, None])[0, 0]


def mended(alpha: Tensor) -> Tensor:
    """A matte [h, w] without ghosts, and without the holes that are not sure."""
    return ops.fill_holes(ops.fade_islands(alpha))


def is_cut(before: Tensor, patches: Tensor) -> bool:
    """Whether a picture does not follow the one before."""
    return float(F.avg_pool2d(patches - before, 2).abs().mean()) > SCENE_CUT


def input_of(frame: Frame, size: tuple[int, int]) -> Tensor:
    """A frame as the network sees it, [1, 3, h, w] normalised, as it is coded."""
    high = is_hdr(frame.colour)
    coded = ops.frame_to_input(
        frame.planes,
        size=size,
        matrix=frame.colour.matrix,
        full_range=frame.colour.full_range,
        depth=frame.format.depth,
        mean=(0.0, 0.0, 0.0) if high else MEAN,
        std=(1.0, 1.0, 1.0) if high else STD,
    )
    if not high:
        return coded
    seen = for_network(coded.permute(0, 2, 3, 1), frame.colour)
    mean, std = (torch.tensor(values, device=seen.device) for values in (MEAN, STD))
    return ((seen - mean) / std).permute(0, 3, 1, 2).contiguous()


def network_size(height: float, width: float, size: int) -> tuple[int, int]:
    """Height and width the network sees: the frame's shape as shown, both sides multiples of 32.

    A 16:9 frame becomes ``size`` wide, and other shapes get as many pixels, as in training: people who fill
    a frame are equally large then. A smaller frame is seen as it is, but for very small ones, which are
    enlarged; no side becomes more than twice ``size``.
    """
    wide = math.sqrt(height * width * float(WIDE))  # its longer side, were it 16:9 with as many pixels
    scale = min(size, max(wide, SMALLEST_SEEN)) / wide
    scale = min(scale, 2 * size / max(height, width))
    return tuple(max(1, round(side * scale / COARSEST_STRIDE)) * COARSEST_STRIDE for side in (height, width))  # type: ignore[return-value]


def matte(items: Iterable[Frame | Packet], stream: MatteStream) -> Iterator[Matted[Frame] | Packet]:
    """Every frame with its matte; packets pass. The pipeline's second stage."""
    for item in items:
        yield item if isinstance(item, Packet) else stream.matted(item)

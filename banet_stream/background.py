"""Backgrounds: image, video, colour or blur become planes that fit a frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from PIL import Image, ImageColor, UnidentifiedImageError
from torch import Tensor

from . import hdr, ops
from .errors import BackgroundError, InputError
from .fields import Deinterlacer
from .fitting import is_grey, with_chroma
from .frame import LIMITED, Colour, Frame, colour_of, is_mirrored, planes_of, quarter_turns, rgb_of
from .images import UNREADABLE, convert_colours, is_moving, may_be_picture, open_image, upright_rgb
from .opening import (
    can_be_read_again,
    check_matrix,
    describe,
    frame_rate,
    is_url,
    local_path,
    open_input,
    picture_streams,
    reason,
)
from .unpack import Clock

DEFAULT_BLUR_STRENGTH = 50.0
# The Gaussian's sigma at strength 100, as a share of the frame's shorter side.
FULL_BLUR = 0.06
# Times are sums of floats: this much is no difference.
ROUNDING_SECONDS = 1e-6
CHOICES = "an image, a video, a colour (green, #00b140), transparent, blur or blur:STRENGTH (1 to 100)"


class Background(ABC):
    """What is put behind the subject.

    Attributes:
        light_wrap: 0 to 1, how much of its light falls on soft edges.
        name: of the file it is read from, if there is one.
    """

    light_wrap: float = 0.0
    name: str = ""

    @abstractmethod
    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        """Three planes, of the frame's shapes, depth and colour, where it lies.

        ``alpha``: its matte, [h, w] in 0..1.
        """

    def begin(self, frame: Frame) -> None:
        """Told of the run's first frame, where that is not the first one it is asked for."""
        return

    def suit(self, profile: bytes | None) -> None:
        """Told before a run of the ICC profile of the photo it will be behind; with None colours are as their
        tags say. What moves begins anew.
        """
        return

    def close(self) -> None:
        """Lets go of files; closing twice is harmless."""
        return


class Blur(Background):
    """The frame's own background, out of focus; ``strength`` 1 to 100."""

    def __init__(self, strength: float = DEFAULT_BLUR_STRENGTH) -> None:
        if not 1 <= strength <= 100:
            raise BackgroundError(f"blur:{strength:g}: the strength must be between 1 and 100")
        self.strength = strength

    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        """See Background."""
        sigma = self.strength / 100 * FULL_BLUR * min(frame.height, frame.width)
        return ops.masked_blur(frame.planes, alpha, sigma=max(sigma, 0.5), depth=frame.format.depth)


class Transparent(Background):
    """Nothing: frames leave as the subject alone, with alpha (``cutout``)."""

    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        """Never called: there is nothing to put behind."""
        raise AssertionError("Transparent has no planes")


class Still(Background):
    """A picture that stays, in sRGB; it is converted once per frame geometry."""

    def __init__(self) -> None:
        self.profile: bytes | None = None
        self._key: object = None
        self._planes: list[Tensor] = []

    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        """See Background."""
        key = (geometry(frame), self.profile)
        if key != self._key:
            self._key = key
            self._planes = planes_like(frame, hdr.place(self.rgb(frame), frame.colour))
        return self._planes

    def suit(self, profile: bytes | None) -> None:
        """See Background."""
        self.profile = profile

    @abstractmethod
    def rgb(self, frame: Frame) -> Tensor:
        """[H, W, 3] float in 0..1 by ``profile``, turned as the frame is coded."""


class Plain(Still):
    """One colour, (red, green, blue) in 0..255."""

    def __init__(self, rgb: tuple[int, int, int]) -> None:
        super().__init__()
        self.colour = rgb

    def rgb(self, frame: Frame) -> Tensor:
        """See Still."""
        dot = convert_colours(Image.new("RGB", (1, 1), self.colour), None, self.profile)
        return torch.tensor(dot.getpixel((0, 0))).div(255).expand(frame.height, frame.width, 3)


class Picture(Still):
    """An image in sRGB, upright, cropped to fill the frame."""

    def __init__(self, image: Image.Image, name: str = "") -> None:
        super().__init__()
        self.image, self.name = image, name

    def rgb(self, frame: Frame) -> Tensor:
        """See Still."""
        width, height, aspect = display_geometry(frame)
        left, top, right, bottom = crop_to_fill(*self.image.size, aspect)
        fitted = self.image.resize((width, height), Image.Resampling.LANCZOS, (left, top, right, bottom))
        fitted = convert_colours(fitted, None, self.profile)
        upright = np.asarray(fitted, np.float32) / 255
        return torch.from_numpy(np.rot90(upright, -frame.rotation // 90).copy())


class Video(Background):
    """A video file, looped at its own frame rate and decoded as it is needed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open()
        self._graph: av.filter.Graph | None = None
        self._key: object = None
        self._loop_seconds = self._last_seconds = 0.0
        self._current = self._read()
        if self._current is None:
            self.close()
            raise BackgroundError(f"{name}: holds no frame that can be decoded")
        self._first_seconds = self._seconds(self._current)
        self._next = self._read()
        self._start_seconds: float | None = None
        self._profile: bytes | None = None
        self._planes: list[Tensor] = []
        self._shown: av.VideoFrame | None = None

    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        """See Background."""
        if self._start_seconds is None:
            self._start_seconds = frame.pts_seconds
        self._advance(frame.pts_seconds - self._start_seconds)
        assert self._current is not None
        key = (geometry(frame), coding(self._current))
        if key != self._key:
            self._key, self._graph = key, None
        if self._shown is not self._current or self._graph is None:
            self._shown = self._current
            self._planes = self._convert(frame)
        return self._planes

    def begin(self, frame: Frame) -> None:
        """See Background."""
        self._start_seconds = frame.pts_seconds

    def suit(self, profile: bytes | None) -> None:
        """See Background."""
        if profile != self._profile:
            self._profile, self._shown = profile, None
        self._start_seconds = None
        if not self._last_seconds:
            return  # it shows its first picture
        self._rewind()
        first = self._read()
        if first is not None:  # else it can't be read again, and its last picture stays
            self._current, self._next = first, self._read()
            self._loop_seconds = self._last_seconds = 0.0

    def close(self) -> None:
        """See Background."""
        self._container.close()

    def _open(self) -> None:
        self._container = open_input(self.name)
        streams = picture_streams(self._container)
        if not streams:
            self.close()
            raise BackgroundError(f"{self.name}: no picture in it; a background is {CHOICES}")
        self._stream = streams[0]
        check_matrix(self.name, self._stream)
        self._stream.thread_type = "AUTO"
        self._info = describe(self._container, self._stream)
        self._begin_again()

    def _begin_again(self) -> None:
        self._frames = self._pictures()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """From where the container is, with times that rise, and deinterlaced where they are marked so."""
        clock, fields = Clock(self._info), Deinterlacer("auto")
        for picture in self._container.decode(self._stream):
            picture.pts = clock.timestamp(picture)
            yield from fields.push(picture)
        yield from fields.flush()

    def _rewind(self) -> None:
        """Back to the top; what can't be read again has ended, and its last picture stays."""
        if not can_be_read_again(self.name):
            return
        try:
            self._container.seek(0)
        except (FFmpegError, OSError):  # a raw stream
            self.close()
            try:
                self._open()
            except InputError as error:
                raise BackgroundError(str(error)) from error
        else:
            self._begin_again()

    def _advance(self, seconds: float) -> None:
        """Moves to the frame shown ``seconds`` after the start."""
        while True:
            if self._next is None:  # the end: from the top, once the last one was shown for its time
                step = self._lasts()
                if seconds + ROUNDING_SECONDS < self._last_seconds + step:
                    return
                self._rewind()
                self._next = self._read()
                if self._next is None:
                    return
                ended = self._last_seconds + step
                length = ended - self._loop_seconds
                skipped = (seconds + ROUNDING_SECONDS - ended) // length  # whole loops, after a gap
                self._loop_seconds = ended + skipped * length
            shown = self._loop_seconds + self._seconds(self._next) - self._first_seconds
            if shown > seconds + ROUNDING_SECONDS:
                return
            self._current, self._last_seconds = self._next, shown
            self._next = self._read()

    def _read(self) -> av.VideoFrame | None:
        try:
            return next(self._frames, None)
        except (FFmpegError, OSError):
            return None  # cut off here: the loop starts again

    def _lasts(self) -> float:
        """Seconds of the current picture: what the file says, else as its rate has it."""
        assert self._current is not None
        own = float((self._current.duration or 0) * self._info.time_base)
        return own if own > 0 else 1 / float(frame_rate(self._stream) or 25)

    def _seconds(self, picture: av.VideoFrame) -> float:
        return float((picture.pts or 0) * self._info.time_base)

    def _convert(self, frame: Frame) -> list[Tensor]:
        picture = self._current
        assert picture is not None
        if is_grey(picture) and int(picture.color_range) == LIMITED:
            picture = with_chroma(picture)
        try:
            if self._graph is None:
                self._graph = fitting_graph(self.name, self._stream, picture, frame)
            self._graph.vpush(picture)
            planes = planes_of(self._graph.vpull(), frame.format)
        except FFmpegError as error:
            raise BackgroundError(
                f"{self.name}: can't be made to fit the frames ({reason(error)})"
            ) from error
        if self._profile is None:
            return [plane.to(frame.device, copy=True) for plane in planes]
        fitted = Image.fromarray(rgb_of(replace(frame, planes=planes)))
        converted = np.asarray(convert_colours(fitted, None, self._profile), np.float32) / 255
        return planes_like(frame, torch.from_numpy(converted))


def planes_like(frame: Frame, rgb: Tensor) -> list[Tensor]:
    """[H, W, 3] in 0..1 as planes of the frame's layout and colour, beside it."""
    planes = ops.rgb_to_planes(
        rgb,
        matrix=frame.colour.matrix,
        full_range=frame.colour.full_range,
        depth=frame.format.depth,
        subsampling=frame.format.subsampling,
    )
    return [plane.to(frame.device) for plane in planes]


def fitting_graph(name: str, stream: av.VideoStream, first: av.VideoFrame, frame: Frame) -> av.filter.Graph:
    """FFmpeg filters that turn, crop, scale and recolour a background video to fit ``frame``."""
    turns = {0: [], 90: ["transpose=cclock"], 180: ["hflip", "vflip"], 270: ["transpose=clock"]}
    turn = quarter_turns(first)
    width, height, aspect = display_geometry(frame)
    size, sample_aspect = (first.width, first.height), stream.sample_aspect_ratio or Fraction(1)
    if turn in (90, 270):
        size, sample_aspect = size[::-1], 1 / sample_aspect
    left, top, right, bottom = (int(edge) for edge in crop_to_fill(*size, aspect / float(sample_aspect)))
    source, target = colour_of(first), frame.colour
    if hdr.kind_of(source) != hdr.kind_of(target):
        raise BackgroundError(
            f"{name}: the background video and INPUT differ in dynamic range or primaries "
            f"({describe_kind(source)}, {describe_kind(target)}); convert one of them, or use a picture"
        )
    ranges = {False: "limited", True: "full"}
    filters = [
        *(["hflip"] if is_mirrored(first) else []),
        *turns[turn],
        f"crop={right - left}:{bottom - top}:{left}:{top}:exact=1",
        f"scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int"
        f":in_color_matrix={source.matrix}:out_color_matrix={target.matrix}"
        f":in_range={ranges[source.full_range]}:out_range={ranges[target.full_range]}",
        f"format={frame.format.name}",
        *turns[-frame.rotation % 360],
    ]
    graph = av.filter.Graph()
    graph.threads = 1
    nodes = [
        graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=stream.time_base
        )
    ]
    for text in filters:
        word, _, arguments = text.partition("=")
        nodes.append(graph.add(word, arguments or None))
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def describe_kind(colour: Colour) -> str:
    curve = {hdr.PQ: "HDR (PQ)", hdr.HLG: "HDR (HLG)"}.get(colour.transfer, "SDR")
    return f"{curve}, {'BT.2020' if colour.primaries == hdr.BT2020 else 'BT.709 or BT.601'}"


def geometry(frame: Frame) -> tuple[object, ...]:
    """All of a frame that its background is made to fit: when it changes, so must the background."""
    shape = (frame.width, frame.height, frame.rotation, frame.sample_aspect_ratio)
    return (*shape, frame.format, frame.colour, frame.device)


def coding(picture: av.VideoFrame) -> tuple[object, ...]:
    """All of a background video's picture that the filters are made for: it may change on the way."""
    layout = (picture.width, picture.height, picture.format.name)
    return (*layout, quarter_turns(picture), is_mirrored(picture), colour_of(picture))


def display_geometry(frame: Frame) -> tuple[int, int, float]:
    """Width and height of the frame's samples when turned upright, and its aspect ratio as shown."""
    aspect = Fraction(frame.width, frame.height) * frame.sample_aspect_ratio
    if frame.rotation in (90, 270):
        return frame.height, frame.width, float(1 / aspect)
    return frame.width, frame.height, float(aspect)


def crop_to_fill(width: int, height: int, aspect: float) -> tuple[float, float, float, float]:
    """The largest centred box (left, top, right, bottom) of an aspect ratio."""
    if width > height * aspect:
        inset = (width - max(1.0, height * aspect)) / 2
        return inset, 0, width - inset, height
    inset = (height - max(1.0, width / aspect)) / 2
    return 0, inset, width, height - inset


def open_background(text: str | Path, *, light_wrap: float = 0.0) -> Background:
    """What ``--bg`` names: a path, a colour, ``blur`` or ``blur:STRENGTH``.

    Raises:
        BackgroundError: when it is none of these or can't be read, or light_wrap is not in 0..1, or there is
            no light to wrap.
    """
    if not 0 <= light_wrap <= 1:
        raise BackgroundError(f"--light-wrap {light_wrap:g}: must be between 0 and 1")
    background = find_background(str(text))
    if light_wrap and isinstance(background, Transparent):
        raise BackgroundError("--light-wrap: transparent gives no light; leave one of them out")
    background.light_wrap = light_wrap
    return background


def find_background(text: str) -> Background:
    """See ``open_background``.

    Words come before files: a file called ``green`` is ``./green``.

    Raises:
        BackgroundError: when it is none of these or can't be read.
    """
    word, _, strength = text.partition(":")
    if word == "blur" and (not strength or is_number(strength)):
        return Blur(float(strength)) if strength else Blur()
    if text == "transparent":
        return Transparent()
    try:
        return Plain(ImageColor.getrgb(text)[:3])
    except ValueError:
        pass
    text = local_path(text)
    if not is_url(text):
        check_there(text)
    try:
        return find_picture(text) or Video(text)
    except InputError as error:
        raise BackgroundError(f"{error}; a background is {CHOICES}") from error


def check_there(name: str) -> None:
    try:
        there, directory = bool(name) and Path(name).exists(), Path(name).is_dir()
    except OSError as error:  # a name too long, a folder that may not be searched
        raise BackgroundError(f"{name}: can't be read ({error.strerror})") from error
    if not there:
        raise BackgroundError(f"{name or '--bg'}: no such file; a background is {CHOICES}")
    if directory:
        raise BackgroundError(f"{name}: is a directory; a background is {CHOICES}")


def find_picture(name: str) -> Picture | None:
    """The image file of this name; None: it is something else, a video perhaps.

    Raises:
        BackgroundError, InputError: when it is one that can't be read.
    """
    if not may_be_picture(name):
        return None
    try:
        with open_image(name) as image:
            if is_moving(image, name):
                return None
            return Picture(upright_rgb(image), name)
    except UnidentifiedImageError:
        return None
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise BackgroundError(f"{name}: the image can't be read ({error})") from error


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

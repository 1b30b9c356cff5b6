"""Media that the tests make: small clips of the astronaut before her background, in every shape asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from demo_server import DemoServer, watched_demo
from live_runs import OPTIONS, Running, stub_matter
from PIL import Image

from banet_stream import Matter
from banet_stream.frame import Frame
from banet_stream.live import LiveOptions
from banet_stream.matting import Matted, MatteStream
from banet_stream.regions import Look
from banet_stream.regions import whole as whole_picture

torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from the user's cache or left in it, by child processes either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BANET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny training sets. They and ``whole`` need training's extra: imported when asked for."""
    from training_sets import write_sets

    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training run of eight iterations on one thread."""
    from training_runs import configure, train

    out = tmp_path_factory.mktemp("whole")
    with threads(1):
        train.train(configure(root, out))
    return out


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Pictures as small as training's tests have gain nothing from more, and a busy machine loses by them."""
    with threads(1):
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many of PyTorch's in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Spec:
    """A clip to make."""

    suffix: str = ".mp4"
    codec: str = "libx264"
    width: int = 96
    height: int = 128
    frames: int = 12
    rate: Fraction = Fraction(25)
    pixel_format: str = "yuv420p"
    audio: str | None = None  # an encoder
    pts: tuple[int, ...] | None = None  # in thousandths; None: constant rate
    rotation: int = 0
    aspect: Fraction = Fraction(1)  # of a sample
    space: int = 2  # H.273 numbers; 2: unspecified
    range: int = 0
    bars: bool = False  # colour bars instead of a person
    index_first: bool = False  # in MP4 and MOV
    noise: bool = False  # so that every frame takes its share of the file


@cache
def portrait(width: int, height: int) -> Image.Image:
    """The astronaut's head and shoulders, cropped to fill. Tests of operators do without scikit-image."""
    from skimage.data import astronaut

    picture = Image.fromarray(astronaut()).crop((60, 0, 400, 440))
    scale = max(width / 340, height / 440)
    picture = picture.resize((max(width, round(340 * scale)), max(height, round(440 * scale))))
    left = (picture.width - width) // 2
    return picture.crop((left, 0, left + width, height))


def colour_bars(width: int, height: int) -> Image.Image:
    bars = [
        (255, 255, 255),
        (255, 255, 0),
        (0, 255, 255),
        (0, 255, 0),
        (255, 0, 255),
        (255, 0, 0),
        (0, 0, 255),
    ]
    return Image.fromarray(np.array([bars], np.uint8)).resize((width, height), Image.Resampling.NEAREST)


def write_clip(path: Path, spec: Spec) -> None:
    options = {"movflags": "+faststart"} if spec.index_first else {}
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream(spec.codec, rate=spec.rate)
        video.width, video.height, video.pix_fmt = spec.width, spec.height, spec.pixel_format
        video.codec_context.sample_aspect_ratio = spec.aspect
        video.codec_context.colorspace, video.codec_context.color_range = spec.space, spec.range
        if spec.pts:
            video.codec_context.time_base = Fraction(1, 1000)
        if spec.rotation:
            video.set_display_rotation(spec.rotation)
        sound = container.add_stream(spec.audio, rate=48000, layout="mono") if spec.audio else None
        picture = colour_bars(spec.width, spec.height) if spec.bars else portrait(spec.width, spec.height)
        if spec.rotation:  # upright once a player has turned it
            upright = portrait(
                *((spec.height, spec.width) if spec.rotation % 180 else (spec.width, spec.height))
            )
            picture = Image.fromarray(np.rot90(np.asarray(upright), -spec.rotation // 90))
        pixels = np.asarray(picture)
        generator = np.random.default_rng(0)
        for index in range(spec.frames):
            shown = np.roll(pixels, index % 3, 1)
            if spec.noise:
                shown = np.clip(shown + generator.normal(0, 12, shown.shape), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            frame = frame.reformat(
                format=spec.pixel_format,
                dst_colorspace=spec.space if spec.space != 2 else None,
                dst_color_range=spec.range or None,
            )
            frame.pts = spec.pts[index] if spec.pts else index
            frame.time_base = video.codec_context.time_base if spec.pts else 1 / spec.rate
            container.mux(video.encode(frame))
            if sound:
                count = round(48000 / spec.rate)
                container.mux(sound.encode(tone(index * count, count)))
        container.mux(video.encode(None))
        if sound:
            container.mux(sound.encode(None))


def tone(start: int, count: int) -> av.AudioFrame:
    samples = np.sin(2 * np.pi * 440 * (start + np.arange(count)) / 48000) * 0.1
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
    return frame


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``clip(width=64, audio="aac")`` -> the path of such a clip; made once, never to be changed."""
    folder = tmp_path_factory.mktemp("clips")

    def make(**wanted: object) -> Path:
        spec = replace(Spec(), **wanted)
        path = folder / (hashlib.sha1(repr(spec).encode()).hexdigest()[:12] + spec.suffix)
        if not path.exists():
            write_clip(path, spec)
        return path

    return make


@pytest.fixture(scope="session")
def matter() -> Matter:
    """The shipped network on the CPU, in float32, at a size that suits the clips."""
    return Matter(device="cpu", precision="float32", size=320)


@dataclass(frozen=True)
class Streams:
    """What a file holds, read back."""

    pts_seconds: list[float]
    frames: list[av.VideoFrame]
    audio_packets: list[bytes]
    audio_seconds: list[float]
    codec: str
    rotation: int


def read(path: Path) -> Streams:
    with av.open(str(path)) as container:
        packets, seconds, pts, frames = [], [], [], []
        for packet in container.demux():
            if packet.stream.type == "audio" and packet.size:
                packets.append(bytes(packet))
                seconds.append(float(packet.pts * packet.time_base))
            elif packet.stream.type == "video":
                for frame in packet.decode():
                    frames.append(frame)
                    pts.append(frame.time)
        video = container.streams.video[0]
        return Streams(
            pts, frames, packets, seconds, video.codec_context.name, frames[0].rotation if frames else 0
        )


def importing(library: str, *words: object, **options: object) -> subprocess.Popen[str]:
    """The command with these words, when it has imported a part of the library: most is still to come."""
    code = (  # a background job ignores SIGINT
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from banet_stream.__main__ import main; main()"
    )
    command = [sys.executable, "-X", "importtime", "-c", code, *(str(w) for w in words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    assert process.stderr is not None
    assert any(f"{library}." in line for line in process.stderr)
    return process


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A running demo with limits small enough to be met."""
    limits = ("--max-seconds", "20", "--max-side", "640", "--max-upload", "2", "--max-cameras", "2")
    with watched_demo(tmp_path_factory.mktemp("demo"), "--size", "128", "--device", "cpu", *limits) as server:
        yield server


@pytest.fixture
def stub() -> Callable[..., Matter]:
    """``stub(act)``: a Matter that sees nobody, after ``act`` had its way; see live_runs.Engine."""
    return stub_matter


@pytest.fixture
def every_matte(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.Tensor], list[Frame]]:
    """``every_matte(alpha)``: that is the matte of every frame, whatever it shows; they are listed."""

    def be(alpha: torch.Tensor) -> list[Frame]:
        look, shown = Look(whole_picture(tuple(alpha.shape)), alpha[None, None]), []

        def matted(self: MatteStream, frame: Frame) -> Matted[Frame]:
            shown.append(frame)
            return Matted(frame, look)

        monkeypatch.setattr(MatteStream, "matted", matted)
        return shown

    return be


@pytest.fixture
def left_half(every_matte: Callable[[torch.Tensor], list[Frame]]) -> None:
    """Of every frame it is somebody."""
    alpha = torch.zeros(64, 224)
    alpha[:, :112] = 1
    every_matte(alpha)


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Callable[..., Running]]:
    """``running(source, output, options)``: a live run that ends with the test; options default to those of
    the test's module, if it has any, else live_runs.OPTIONS."""
    usual = getattr(request.module, "OPTIONS", OPTIONS)
    started: list[Running] = []

    def start(
        source: object,
        output: object = None,
        options: LiveOptions | None = None,
        matter: Matter | None = None,
        **more: object,
    ) -> Running:
        place = None if output is None else str(output)
        started.append(Running(str(source), place, matter or stub_matter(), options or usual, **more))
        return started[-1]

    yield start
    for run in started:
        run.stop.set()
        run.thread.join(20)

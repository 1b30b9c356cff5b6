"""``banet-stream doctor``: what this installation really uses, seen by using it."""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import torch

from . import backends, hardware
from .codecs import CODECS, Codec
from .encoder import open_encoder
from .errors import BanetStreamError
from .matting import Matter


def main(arguments: Sequence[str]) -> int:
    """Prints a line per part; returns 0 if the package can do its job, else 1."""
    parser = argparse.ArgumentParser(
        prog="banet-stream doctor",
        description="Prints what runs here; exits with 1 if the job can't be done.",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu; default: auto")
    options = parser.parse_args(arguments)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("versions", versions),
        ("engine", lambda: engine(options.device)),
        ("encoders", encoders),
        ("hardware", hardware.describe),
        ("decoder", decoder),
        ("operators", operators),
    ]
    healthy = True
    for name, examine in checks:
        try:
            finding = examine()
        except (BanetStreamError, OSError, ValueError, RuntimeError) as error:
            healthy, finding = False, f"BROKEN: {error}"
        print(f"{name:<10} {finding}")
    print("ready" if healthy else "not able to work: see BROKEN above")
    return 0 if healthy else 1


def versions() -> str:
    return (
        f"banet-stream {version('banet-stream')}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, PyAV {av.__version__} (FFmpeg {av.ffmpeg_version_info}), "
        f"{platform.system()} {platform.machine()}"
    )


def engine(device: str) -> str:
    """Runs the network once."""
    matter = Matter(device=device)
    alpha = matter.alpha(np.zeros((64, 64, 3), np.uint8))
    if alpha.shape != (64, 64):
        raise RuntimeError(f"the matte of a 64x64 picture is {alpha.shape}")
    name = (
        f" ({torch.cuda.get_device_name(matter.engine.device)})"
        if matter.engine.device.type == "cuda"
        else ""
    )
    return f"{matter.stream().description}{name}, {torch.get_num_threads()} threads"


def encoders() -> str:
    """Encodes a frame with each; H.264 must work."""
    working = []
    for name, codec in CODECS.items():
        try:
            encode_one(codec)
        except (av.FFmpegError, ValueError) as error:
            if name == "h264":
                raise RuntimeError(f"{codec.encoder}: {error}") from error
        else:
            working.append(f"{name} ({codec.encoder})")
    return ", ".join(working)


def encode_one(codec: Codec) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec.encoder, rate=25, options=codec.options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = 64, 64
            formats = {f.name for f in av.Codec(codec.encoder, "w").video_formats or ()}
            stream.pix_fmt = "yuv420p" if "yuv420p" in formats else "yuv422p10le"
            open_encoder(stream.codec_context)
            container.mux(stream.encode(av.VideoFrame(64, 64, stream.pix_fmt)))
            container.mux(stream.encode(None))
        with av.open(str(path)) as container:
            frames = sum(1 for _ in container.decode(video=0))
        if frames != 1:
            raise ValueError(f"{codec.encoder}: {frames} frames came back of 1")


def decoder() -> str:
    encode_one(CODECS["h264"])
    return "FFmpeg in software (libavcodec, frame threads)"


def operators() -> str:
    """What serves every operator, those alike together."""
    served: dict[str, list[str]] = {}
    for name, backend in backends.describe().items():
        served.setdefault(backend, []).append(name)
    return "; ".join(f"{backend} ({', '.join(names)})" for backend, names in served.items())

"""Video encoders: which there are, what a container takes, and the choice among them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import av

from .errors import OutputError
from .frame import PIXEL_FORMATS, PixelFormat

# SVT-AV1 writes its banner to standard error unless told: errors only.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True)
class Codec:
    """A video encoder and how we run it."""

    encoder: str  # FFmpeg's name
    crf: int | None  # default constant quality: hard to tell from the source; None: not an option of it
    options: dict[str, str] = field(default_factory=dict)
    worst_crf: int = 51
    best_crf: int = 0  # what the encoder is told for anything better
    even: bool = False  # refuses odd sizes with subsampled chroma
    limited: bool = False  # has no word for full range
    codec_tag: str | None = None  # in MP4 and MOV
    quality: str = "crf"  # the encoder's name for constant quality
    intra: bool = False  # every frame stands alone: the first one tells the size of all
    alpha_options: dict[str, str] = field(default_factory=dict)  # where frames carry alpha


@dataclass(frozen=True)
class EncodeOptions:
    """How the output is written; None leaves a choice to the container."""

    codec: str | None = None
    crf: int | None = None
    bit_rate: int | None = None  # bits per second
    overwrite: bool = False
    encoder: str = "auto"  # hardware.ENCODERS


CODECS = {
    "h264": Codec("libx264", 18, {"preset": "medium"}, even=True),
    "hevc": Codec(
        "libx265", 20, {"preset": "medium", "x265-params": "log-level=error"}, even=True, codec_tag="hvc1"
    ),
    "av1": Codec("libsvtav1", 28, {"preset": "8"}, worst_crf=63, even=True),
    # Alternate reference frames and alpha do not go together in VP9's encoder.
    "vp9": Codec(
        "libvpx-vp9",
        28,
        {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
        worst_crf=63,
        alpha_options={"auto-alt-ref": "0"},
    ),
    "prores": Codec(
        "prores_ks", None, {"profile": "hq"}, intra=True, limited=True, alpha_options={"profile": "4444"}
    ),
    "ffv1": Codec("ffv1", None, intra=True),
}
# What a container takes; its first is the default. Beyond 8 bits HEVC comes before H.264, whose
# 10-bit profile hardly any player knows.
CONTAINERS = {
    ".mp4": ("h264", "hevc", "av1", "vp9"),
    ".m4v": ("h264", "hevc"),
    ".mov": ("h264", "hevc", "prores"),
    ".mkv": ("h264", "hevc", "av1", "vp9", "prores", "ffv1"),
    ".webm": ("vp9", "av1"),
}
# The same, for frames with alpha that players and editors read back: VP9 in MP4 has no place for it.
ALPHA_CONTAINERS = {".mov": ("prores",), ".webm": ("vp9",), ".mkv": ("ffv1", "vp9", "prores")}
MOV_FAMILY = (".mp4", ".m4v", ".mov")
# These tell the shape of samples themselves. FFmpeg's Matroska muxer would too, had PyAV a way to tell it.
ASPECT_IN_BITSTREAM = ("h264", "hevc")


def choose_codec(path: Path, options: EncodeOptions, depth: int, *, alpha: bool) -> tuple[str, Codec]:
    """The codec asked for, else the usual one of OUTPUT's container for samples of ``depth`` bits."""
    held = (ALPHA_CONTAINERS if alpha else CONTAINERS)[path.suffix.lower()]
    name = options.codec or ("hevc" if depth > 8 and held[0] == "h264" else held[0])
    return name, CODECS[name]


def choose_format(codec: Codec, wanted: PixelFormat, *, alpha: bool = False) -> PixelFormat:
    """``wanted`` if the encoder takes it (with an alpha plane), else the nearest it takes: first the depth
    goes, then chroma."""
    taken = {f.name for f in av.Codec(codec.encoder, "w").video_formats or ()}
    formats = [f for f in PIXEL_FORMATS.values() if (f.alpha_name if alpha else f.name) in taken]

    def loss(candidate: PixelFormat) -> tuple[bool, int, bool, int]:
        finer = [a - b for a, b in zip(candidate.subsampling, wanted.subsampling, strict=True)]
        depth = candidate.depth - wanted.depth
        return any(x > 0 for x in finer), abs(sum(finer)), depth < 0, abs(depth)

    return min(formats, key=loss)


def check_rate(name: str, codec: Codec, options: EncodeOptions) -> None:
    if codec.crf is None and (options.crf is not None or options.bit_rate is not None):
        raise OutputError(f"--codec {name}: has one quality; leave out --crf and --bitrate")
    if options.crf is not None and not 0 <= options.crf <= codec.worst_crf:
        raise OutputError(f"--crf {options.crf}: must be between 0 and {codec.worst_crf} for {name}")


def check_codec(path: Path, options: EncodeOptions, *, alpha: bool) -> None:
    """Whether OUTPUT's container holds the codec asked for, and alpha if there is some.

    Raises:
        OutputError: naming what would.
    """
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise OutputError(
            f"{path}: the extension must be one of {', '.join(CONTAINERS)}, got {suffix or 'none'!r}"
        )
    if alpha and suffix not in ALPHA_CONTAINERS:
        raise OutputError(
            f"{path}: {suffix} can't hold transparency; use .mov, .webm, .mkv or pictures (out/%06d.png)"
        )
    if options.codec is None:
        return
    if options.codec not in CODECS:
        raise OutputError(f"--codec {options.codec}: must be one of {', '.join(CODECS)}")
    held = (ALPHA_CONTAINERS if alpha else CONTAINERS)[suffix]
    if options.codec not in held:
        what = "it with transparency" if alpha and options.codec in CONTAINERS[suffix] else "it"
        raise OutputError(f"--codec {options.codec}: {suffix} can't hold {what}; it holds {', '.join(held)}")


def keeps_aspect(name: str, suffix: str) -> bool:
    """Whether who reads a codec in a container learns its sample aspect ratio."""
    return suffix.lower() in MOV_FAMILY or name in ASPECT_IN_BITSTREAM


def muxer(path: Path) -> str:
    return {".mkv": "matroska", ".m4v": "mp4"}.get(path.suffix.lower(), path.suffix.lower()[1:])

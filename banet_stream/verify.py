"""``--verify``: source and output are read again and compared, promise by promise."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import av
from torch import Tensor
from torch.nn import functional as F

from . import chroma
from .codecs import CODECS, MOV_FAMILY, keeps_aspect
from .decode import Source, decode
from .encode import is_hidden
from .frame import Frame, Packet, planes_of, to_video_frame

# Frames whose core is compared, spread over the whole run.
MOST_SAMPLES = 24
# The core: the matte as good as one, and so for this many of its samples around.
CERTAIN, CORE_MARGIN = 0.99, 2
# At default quality the core is at least this near to the source; a visible loss starts higher than that.
LEAST_PSNR = 30.0
# Matroska counts milliseconds; the others keep the source's own ticks.
MATROSKA_SECONDS, ROUNDING_SECONDS = 1.1e-3, 1e-6
# Sound against picture, as the issue of lip sync is measured.
SYNC_SECONDS = 1e-3


@dataclass(frozen=True)
class Finding:
    """One promise: what the source says, what the output does, and whether that is kept."""

    name: str
    kept: bool
    source: object
    output: object


@dataclass(frozen=True)
class Verification:
    """All findings of a run."""

    findings: list[Finding]

    @property
    def broken(self) -> list[Finding]:
        """Promises that were not kept."""
        return [f for f in self.findings if not f.kept]


class CoreSamples:
    """Remembers where the subject surely is, on frames spread evenly over a run of unknown length.

    ``first``: the number of the first frame to come.
    """

    def __init__(self, first: int = 0) -> None:
        self._every, self._seen = 1, first
        self.cores: dict[int, Tensor] = {}  # frame number -> [h, w] bool at network size

    def watch(self, _: Frame, alpha: Tensor) -> None:
        """Takes a frame's matte, [h, w] float32 in 0..1 at network size."""
        if self._seen % self._every == 0:
            if len(self.cores) == MOST_SAMPLES:
                self._every *= 2
                self.cores = {n: core for n, core in self.cores.items() if n % self._every == 0}
            if self._seen % self._every == 0:
                self.cores[self._seen] = core_of(alpha)
        self._seen += 1


def core_of(alpha: Tensor) -> Tensor:
    """[h, w] float32 -> [h, w] bool: surely subject, and so all around."""
    doubt = (alpha < CERTAIN).float()[None, None]
    size = 2 * CORE_MARGIN + 1
    return F.max_pool2d(doubt, size, 1, CORE_MARGIN)[0, 0] == 0


@dataclass
class Side:
    """What was read of source or output."""

    source: Source
    shown_in: Path | None = None  # of a source: the output, in which hidden sound is left out
    frames: int = 0
    seconds: list[float] = field(default_factory=list)
    first: Frame | None = None
    sound: dict[int, Sound] = field(default_factory=dict)  # by stream

    def pictures(self) -> Iterator[Frame]:
        """Its frames; packets of sound are summed up on the way."""
        for item in decode(self.source):
            if isinstance(item, Packet):
                if item.stream.type == "audio" and not self._hides(item):
                    sound = self.sound.setdefault(item.stream.index, Sound(item.stream.codec_context.name))
                    sound.add(item)
                    if math.isnan(sound.heard_seconds):
                        sound.hear(self.source.decode_sound(item))
                continue
            self.first = self.first or replace(item, planes=[])
            self.frames += 1
            self.seconds.append(item.pts_seconds)
            yield item

    def _hides(self, packet: Packet) -> bool:
        return self.shown_in is not None and is_hidden(packet, self.source, self.shown_in)


class Sound:
    """The packets of one stream of sound: how many, when the first, and a digest of all.

    ``heard_seconds``: when the first sample is heard, after those that a codec needs to get going.
    """

    def __init__(self, codec: str) -> None:
        self.codec, self.packets = codec, 0
        self.first_seconds = self.heard_seconds = math.nan
        self._digest = hashlib.sha256()

    def add(self, packet: Packet) -> None:
        """The next packet."""
        if not packet.size or packet.pts is None or packet.time_base is None:
            return
        if not self.packets:
            self.first_seconds = float(packet.pts * packet.time_base)
        self.packets += 1
        self._digest.update(without_adts(bytes(packet)))

    def hear(self, frames: list[av.AudioFrame]) -> None:
        """Samples of the first packet that has some."""
        if frames and frames[0].time is not None:
            self.heard_seconds = frames[0].time

    @property
    def digest(self) -> str:
        """Of all packets' bytes."""
        return self._digest.hexdigest()[:16]


def without_adts(content: bytes) -> bytes:
    """AAC without the header that MPEG-TS puts before every packet (ISO 13818-7, 6.2) and MP4 does not."""
    synchronised = len(content) > 9 and content[0] == 0xFF and content[1] & 0xF6 == 0xF0
    length = ((content[3] & 3) << 11 | content[4] << 3 | content[5] >> 5) if synchronised else 0
    if length != len(content):
        return content
    return content[7 if content[1] & 1 else 9 :]


class Error:
    """Sums of squared differences inside the core."""

    def __init__(self) -> None:
        self.squares, self.samples = [0.0, 0.0], [0, 0]  # luma, chroma

    def add(self, source: Frame, output: Frame, core: Tensor) -> None:
        """One frame of both; the output may be padded or in another layout."""
        if (output.format, output.colour.range) != (source.format, source.colour.range):
            layout = source.format
            video = to_video_frame(output).reformat(format=layout.name, dst_color_range=source.colour.range)
            output = replace(output, planes=planes_of(video, layout), format=layout)
        for index, (before, after) in enumerate(zip(source.planes, output.planes, strict=True)):
            inside = F.interpolate(core[None, None].float(), before.shape, mode="nearest")[0, 0] > 0
            difference = before.float() - after[: before.shape[0], : before.shape[1]].float()
            kind = min(index, 1)
            self.squares[kind] += float((difference[inside] ** 2).sum())
            self.samples[kind] += int(inside.sum())

    def psnr(self, kind: int, depth: int) -> float | None:
        """Decibels, of luma (0) or chroma (1); None: there was no core. 99 stands for no difference."""
        if not self.samples[kind]:
            return None
        mean = self.squares[kind] / self.samples[kind]
        return min(99.0, 10 * math.log10((2**depth - 1) ** 2 / mean)) if mean else 99.0


def verify(source: Source, output: Path, samples: CoreSamples, *, usual_quality: bool) -> Verification:
    """Reads both to their ends and compares them.

    Args:
        source: opened anew, with the options of the run.
        samples: where the subject surely was.
        usual_quality: neither rate nor quality were chosen: then the core's PSNR is a promise.
    """
    with ExitStack() as stack:
        result = Source(output, audio=True, deinterlace="off")
        stack.callback(result.close)
        before, after = Side(source, output), Side(result)
        error = Error()
        for number, (old, new) in enumerate(zip_longest(before.pictures(), after.pictures())):
            if old is not None and new is not None and number in samples.cores:
                error.add(old, new, samples.cores[number])
    findings = [Finding("frames", before.frames == after.frames, before.frames, after.frames)]
    findings.append(Finding("output reads without damage", not result.damaged, 0, result.damaged))
    findings.append(compare_times(before, after, exact=output.suffix.lower() in MOV_FAMILY))
    findings += compare_pictures(before, after, output.suffix)
    findings += compare_sound(before, after, left_out=not any(s.type == "audio" for s in source.passed))
    depth = before.first.format.depth if before.first else 8
    for kind, name in enumerate(("luma", "chroma")):
        psnr = error.psnr(kind, depth)
        kept = not usual_quality or psnr is None or psnr >= LEAST_PSNR
        rule = f"at least {LEAST_PSNR:g}" if usual_quality else "any"
        shown = None if psnr is None else round(psnr, 2)
        findings.append(Finding(f"PSNR of the subject's core in dB, {name}", kept, rule, shown))
    return Verification(findings)


def compare_times(before: Side, after: Side, *, exact: bool) -> Finding:
    """Each frame's time since the first one."""
    old, new = ([t - side.seconds[0] for t in side.seconds] for side in (before, after))
    worst = max((abs(a - b) for a, b in zip(old, new, strict=False)), default=0.0)
    limit = ROUNDING_SECONDS if exact else MATROSKA_SECONDS
    rule = f"at most {limit * 1e3:g}"
    return Finding("largest difference of timestamps in ms", worst <= limit, rule, round(worst * 1e3, 4))


def compare_pictures(before: Side, after: Side, suffix: str) -> Iterator[Finding]:
    """Tags, but for those that the codec and container have no word for."""
    old, new = before.first, after.first
    if old is None or new is None:
        return
    codec = after.source.video.codec_context.codec.canonical_name
    limited = codec in CODECS and CODECS[codec].limited
    aspects = [str(frame.sample_aspect_ratio) for frame in (old, new)]
    pairs: dict[str, tuple[object, object]] = {
        "matrix (H.273)": (old.colour.space, new.colour.space),
        "primaries (H.273)": (old.colour.primaries, new.colour.primaries),
        "transfer (H.273)": (old.colour.transfer, new.colour.transfer),
        "full range": (old.colour.full_range and not limited, new.colour.full_range),
        "rotation": (old.rotation, new.rotation),
    }
    if keeps_aspect(codec, suffix) or aspects[1] != "1":
        pairs["sample aspect ratio"] = (aspects[0], aspects[1])
    places = (old.colour.chroma_location, new.colour.chroma_location)
    told = places[1] != chroma.UNSPECIFIED or chroma.is_kept(places[0], codec, suffix)
    if places[0] != chroma.UNSPECIFIED and new.format.subsampling == (2, 2) and told:
        pairs["chroma location"] = places
    for name, (was, now) in pairs.items():
        yield Finding(name, was == now, was, now)


def compare_sound(before: Side, after: Side, *, left_out: bool) -> Iterator[Finding]:
    """Stream by stream: copied ones byte by byte, and all against the picture."""
    if left_out:
        return
    old, new = ([side.sound[i] for i in sorted(side.sound)] for side in (before, after))
    yield Finding("tracks of sound", len(old) == len(new), len(old), len(new))
    for number, (was, now) in enumerate(zip(old, new, strict=False), 1):
        if was.codec == now.codec:
            same = (was.packets, was.digest) == (now.packets, now.digest)
            shown = [f"{s.packets} packets, {s.digest}" for s in (was, now)]
            yield Finding(f"sound {number}, copied", same, *shown)
        else:
            yield Finding(f"sound {number}, re-encoded", now.packets > 0, was.codec, now.codec)
        copied = was.codec == now.codec
        begins = [s.first_seconds if copied else s.heard_seconds for s in (was, now)]
        offsets = [s - t for s, t in zip(begins, (before.seconds[0], after.seconds[0]), strict=True)]
        in_sync = abs(offsets[0] - offsets[1]) <= SYNC_SECONDS
        shown_ms = [round(t * 1e3, 3) for t in offsets]
        yield Finding(f"sound {number} begins after the picture, ms", in_sync, *shown_ms)


def as_table(verification: Verification) -> str:
    """For people: a line each."""
    rows = []
    for f in verification.findings:
        word = "kept" if f.kept else "BROKEN"
        rows.append(f"{word:<7} {f.name}: {f.output} (source: {f.source})")
    return "\n".join(rows)

"""Finished pieces of encoded video on disk, from which an interrupted run goes on.

A folder ``OUTPUT.resume`` holds ``run.json``, what the run is about, and ``000001.segment`` and so on. A
segment is a line of JSON, which tells its packets, and after it their bytes; it is renamed to that name only
when it is whole and on the disk, so every segment there is a finished one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Literal

import av
from av.packet import PacketSideData, packet_sidedata_type_from_literal

from .errors import OutputError
from .frame import Packet
from .locks import lock

# A crash costs at most so much work; the bound on bytes keeps memory flat with any codec.
SEGMENT_FRAMES, SEGMENT_BYTES = 250, 64_000_000
# VP9 carries alpha beside its packets' bytes, under this name of FFmpeg's.
ALPHA_SIDE: Literal["matroska_block_additional"] = "matroska_block_additional"
SIDE_TYPE = packet_sidedata_type_from_literal(ALPHA_SIDE)


@dataclass(frozen=True)
class PacketEntry:
    """A packet in a segment's index; ``side`` is the length of its alpha, which follows its bytes."""

    pts: int
    duration: int
    is_keyframe: bool
    size: int
    side: int


@dataclass(frozen=True)
class SegmentIndex:
    """The first line of a segment."""

    frames: int
    last_pts: int
    depth: int  # reorder_depth
    entries: list[PacketEntry]


class Segments:
    """The folder beside OUTPUT, locked against a second run.

    Args:
        output: OUTPUT. facts: what the result depends on; another run's are refused.

    Raises:
        OutputError: when the folder is another run's, or one is at work in it.
    """

    def __init__(self, output: Path, facts: dict[str, str]) -> None:
        self.folder = output.with_name(f"{output.name}.resume")
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"{self.folder}: is a file; --resume needs a folder of that name")
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            self._take_over(facts)
        except OutputError:
            self._lock.close()
            raise
        for rest in self.folder.glob("*.unfinished*"):
            rest.unlink()
        self.indices = [replace(read_index(path), entries=[]) for path in self._paths()]

    def _take_over(self, facts: dict[str, str]) -> None:
        lock(self._lock, f"{self.folder}: another run is at work in it")
        path = self.folder / "run.json"
        before = read_facts(path)
        if before is None and not self._paths():
            with path.open("w") as file:
                json.dump(facts, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            return
        if before is None:
            raise OutputError(f"{path}: is damaged; remove {self.folder} to begin anew")
        other = sorted(k for k in facts.keys() | before.keys() if facts.get(k) != before.get(k))
        if other:
            raise OutputError(
                f"{self.folder}: is of another run (different: {', '.join(other)}); "
                "give the same command, or remove that folder to begin anew"
            )

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.segment"))

    @property
    def frames(self) -> int:
        """In finished segments."""
        return sum(index.frames for index in self.indices)

    @property
    def last_pts(self) -> int | None:
        """Of the last finished frame."""
        return self.indices[-1].last_pts if self.indices else None

    def add(self, packets: list[Packet]) -> None:
        """Keeps a segment's packets, in decoding order, with the certainty that a disk gives."""
        pieces = [(bytes(packet), side_of(packet)) for packet in packets]
        entries = [
            PacketEntry(p.pts or 0, p.duration or 0, p.is_keyframe, len(content), len(side))
            for p, (content, side) in zip(packets, pieces, strict=True)
        ]
        times = [entry.pts for entry in entries]
        index = SegmentIndex(len(entries), max(times), reorder_depth(times), entries)
        name = f"{len(self.indices) + 1:06d}"
        unfinished = self.folder / f"{name}.unfinished"
        with unfinished.open("wb") as file:
            file.write(json.dumps(asdict(index)).encode() + b"\n")
            for content, side in pieces:
                file.write(content)
                file.write(side)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.folder / f"{name}.segment")
        self.indices.append(replace(index, entries=[]))

    def packets(self, time_base: Fraction) -> Iterator[Packet]:
        """All packets, with decoding times that rise over the joints."""
        depth = max((index.depth for index in self.indices), default=0)
        paths = self._paths()
        times = sorted(entry.pts for path in paths for entry in read_index(path).entries)
        step = max(1, times[1] - times[0]) if len(times) > 1 else 1
        number = 0
        for path in paths:
            entries = read_index(path).entries
            with path.open("rb") as file:
                file.readline()
                for entry in entries:
                    packet = read_packet(file, entry)
                    packet.time_base = time_base
                    ahead = number - depth
                    packet.dts = times[ahead] if ahead >= 0 else times[0] + ahead * step
                    number += 1
                    yield packet

    def close(self) -> None:
        """Lets another run in; an empty folder goes."""
        self._lock.close()
        if not self.indices:
            self.remove()

    def remove(self) -> None:
        """All of it is in OUTPUT. The last go first: who is killed here leaves no gap between segments."""
        with suppress(OSError):
            for path in reversed(self._paths()):
                path.unlink()
            shutil.rmtree(self.folder)


def read_facts(path: Path) -> dict[str, str] | None:
    """What an earlier run wrote; None: nothing, or a crash tore it."""
    try:
        facts: dict[str, str] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def reorder_depth(times: list[int]) -> int:
    """By how many places a frame is coded after its place in the order of display, at most."""
    place = {pts: number for number, pts in enumerate(sorted(times))}
    return max((number - place[pts] for number, pts in enumerate(times)), default=0)


def read_index(path: Path) -> SegmentIndex:
    with path.open("rb") as file:
        facts: dict[str, Any] = json.loads(file.readline())
    return SegmentIndex(**facts | {"entries": [PacketEntry(**entry) for entry in facts["entries"]]})


def read_packet(file: IO[bytes], entry: PacketEntry) -> Packet:
    packet = av.Packet(file.read(entry.size))
    packet.pts, packet.duration, packet.is_keyframe = entry.pts, entry.duration, entry.is_keyframe
    if entry.side:
        side = PacketSideData(SIDE_TYPE, entry.side)  # type: ignore[call-arg]
        side.update(file.read(entry.side))
        packet.set_sidedata(side)
    return packet


def side_of(packet: Packet) -> bytes:
    for side in packet.iter_sidedata():
        if side.data_type == ALPHA_SIDE:
            return bytes(side)
    return b""

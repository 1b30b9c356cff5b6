"""Interlaced pictures become whole ones: half their lines were taken a moment later, and move like a comb."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.error import FFmpegError

CHOICES = ("auto", "on", "off")


class Deinterlacer:
    """FFmpeg's bwdif (motion-adaptive, w3fdif's and yadif's heir), one picture for every two fields.

    Args:
        choice: ``auto`` works from the first picture that its stream marks as interlaced, and on such
            pictures only; ``on`` takes all for interlaced, top field first where nothing is marked.
    """

    def __init__(self, choice: str) -> None:
        self.choice = choice
        self.working = False
        self._graph: av.filter.Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def push(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Pictures that are ready, with timestamps in the time base of what went in; bwdif holds one back."""
        if not self.working:
            self.working = self.choice == "on" or (self.choice == "auto" and picture.interlaced_frame)
        if not self.working:
            yield picture
            return
        shape = (picture.width, picture.height, picture.format.name)
        if shape != self._shape:
            yield from self.flush()
            self._shape, self._graph = shape, self._make(picture)
        assert self._graph is not None
        self._graph.vpush(picture)
        yield from self._pull()

    def flush(self) -> Iterator[av.VideoFrame]:
        """The picture held back."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
            self._graph = None

    def _make(self, picture: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        assert picture.time_base is not None
        self._time_base = picture.time_base
        which = "all" if self.choice == "on" else "interlaced"
        source = graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=picture.time_base,
        )
        graph.link_nodes(
            source, graph.add("bwdif", f"mode=send_frame:deint={which}"), graph.add("buffersink")
        ).configure()
        return graph

    def _pull(self) -> Iterator[av.VideoFrame]:
        assert self._graph is not None
        while True:
            try:
                picture = self._graph.vpull()
            except (BlockingIOError, EOFError, FFmpegError):
                return
            if picture.pts is not None and picture.time_base is not None:
                picture.pts = round(picture.pts * picture.time_base / self._time_base)
            picture.time_base = self._time_base
            yield picture

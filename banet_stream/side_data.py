"""What FFmpeg tells of a decoded picture beside its samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
from av.sidedata.sidedata import SideData, SideDataContainer, Type


def side_data_of(frame: av.VideoFrame) -> Iterator[SideData]:
    """What ``frame.side_data`` holds; that ties a frame to itself, for the garbage collector to undo."""
    container: Any = SideDataContainer  # PyAV's stubs lack its argument
    yield from container(frame)


def without_a_name(kind: type[Type], value: Any) -> Type:
    """A member for what FFmpeg knows and this PyAV does not: the EXIF of Motion JPEG and TIFF, the views of
    3D video, LCEVC. Without it PyAV raises ValueError there, and gives nothing of what lies beside it."""
    member: Type = object.__new__(kind)
    member._name_, member._value_ = f"NUMBER_{value}", value
    return member


Type._missing_ = classmethod(without_a_name)  # type: ignore[assignment,method-assign]

"""--save-power: the network rests while nothing moves, and only then."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np

from banet_stream import Matter
from banet_stream.frame import PIXEL_FORMATS, colour_of, planes_of
from banet_stream.live_source import LiveFrame
from banet_stream.matting import MOST_RESTS, MatteStream


def frame_at(number: int, picture: np.ndarray) -> LiveFrame:
    video = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
    layout = PIXEL_FORMATS["yuv420p"]
    return LiveFrame(planes_of(video, layout), layout, colour_of(video), number, Fraction(1, 25))


def test_the_network_rests_while_nothing_moves(stub: Callable[..., Matter]) -> None:
    matter = stub()
    stream = MatteStream(matter, save_power=True)
    generator = np.random.default_rng(0)
    room = generator.integers(40, 200, (12, 16, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    for number in range(20):  # a still room with a webcam's noise
        noisy = np.clip(room + generator.normal(0, 3, room.shape), 0, 255).astype(np.uint8)
        stream.network_alpha(frame_at(number, noisy))
    assert matter.engine.calls == 1  # type: ignore[attr-defined]
    moved = room.copy()
    moved[100:140, 100:140] = 255 - moved[100:140, 100:140]  # a hand
    stream.network_alpha(frame_at(20, moved))
    assert matter.engine.calls == 2  # type: ignore[attr-defined]
    stream.reset()
    stream.network_alpha(frame_at(21, moved))
    assert matter.engine.calls == 3  # type: ignore[attr-defined]
    for number in range(MOST_RESTS + 1):  # not for ever
        stream.network_alpha(frame_at(22 + number, moved))
    assert matter.engine.calls == 4  # type: ignore[attr-defined]
    assert stream.frames - stream.rested == 4


def test_slow_motion_is_not_missed(stub: Callable[..., Matter]) -> None:
    """Each step is below the gate, their sum is not."""
    matter = stub()
    stream = MatteStream(matter, save_power=True)
    for number in range(24):
        stream.network_alpha(frame_at(number, np.full((240, 320, 3), 100 + number, np.uint8)))
    assert 3 <= matter.engine.calls <= 8  # type: ignore[attr-defined]


def test_without_the_option_every_frame_is_seen(stub: Callable[..., Matter]) -> None:
    matter = stub()
    stream = matter.stream()
    for number in range(5):
        stream.network_alpha(frame_at(number, np.full((64, 64, 3), 100, np.uint8)))
    assert matter.engine.calls == 5  # type: ignore[attr-defined]

"""What hides a frame of a live run: the blur, the slate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from banet_stream.background import Background, Picture, Plain
from banet_stream.cover import Cover, open_slate
from banet_stream.errors import BackgroundError
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame

COLOUR = Colour("bt601", False, 6, 6, 6)


def frame_of(luma: np.ndarray) -> Frame:
    height, width = luma.shape
    chroma = torch.full((height // 2, width // 2), 128, dtype=torch.uint8)
    planes = [torch.from_numpy(luma), chroma, chroma.clone()]
    return Frame(planes, PIXEL_FORMATS["yuv420p"], COLOUR, 7, Fraction(1, 90000))


def test_a_full_blur_leaves_no_detail() -> None:
    rows, columns = np.mgrid[:240, :320]
    room = (((rows // 8 + columns // 8) % 2) * 200 + 20).astype(np.uint8)
    hidden = Cover("blur").hide(frame_of(room)).planes[0].numpy().astype(int)
    assert np.abs(np.diff(hidden, axis=1)).max() <= 8
    assert hidden.std() < 20
    assert room.std() > 90


class Broken(Background):
    def planes(self, frame: Frame, alpha: torch.Tensor) -> list[torch.Tensor]:
        raise MemoryError("no memory")


def test_covering_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    room = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("banet_stream.cover.full_blur", fails)
    slate = Cover("blur", Plain((255, 0, 0))).hide(frame_of(room))
    assert len(np.unique(slate.planes[0].numpy())) == 1
    assert int(slate.planes[2][0, 0]) > 200
    grey = Cover("blur", Broken()).hide(frame_of(room))
    assert all((p.numpy() == 128).all() for p in grey.planes)
    assert grey.pts == 7


def test_the_drawn_slate_says_something() -> None:
    slate = Cover("slate").hide(frame_of(np.zeros((360, 640), np.uint8))).planes[0].numpy()
    assert len(np.unique(slate)) > 20
    assert slate.max() > 150


def test_a_slate_is_an_image_or_a_colour(tmp_path: Path) -> None:
    assert isinstance(open_slate("red"), Plain)
    Image.new("RGB", (8, 8)).save(tmp_path / "card.png")
    picture = open_slate(str(tmp_path / "card.png"))
    assert isinstance(picture, Picture)
    assert picture.name == str(tmp_path / "card.png")


@pytest.mark.parametrize(
    ("slate", "message"),
    [
        ("none.png", "--slate none.png: no such file"),
        ("blur", "--slate blur: must be an image or a colour"),  # the room would show through it
        ("transparent", "--slate transparent: must be an image or a colour"),
    ],
)
def test_other_slates_are_refused(slate: str, message: str) -> None:
    with pytest.raises(BackgroundError, match=message):
        open_slate(slate)

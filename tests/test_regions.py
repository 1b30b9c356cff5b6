"""Where the network looks: closer at people who are small, and at everything when something happens there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut
from torch import Tensor
from torch.nn import functional as F

from banet_stream import Matter
from banet_stream.cli import build_parser
from banet_stream.matter_options import make_matter
from banet_stream.matting import network_size
from banet_stream.picture import frame_of
from banet_stream.regions import (
    FADE,
    FRAMES_KEPT,
    FRAMES_UNSEEN,
    LARGEST_ZOOM,
    SMALLEST_ZOOM,
    Box,
    Gaze,
    Look,
    Region,
    box_of,
    region_for,
)

SHAPE, SIZE = (720, 1280), (256, 448)
shares = st.floats(0, 1)


# --- regions -----------------------------------------------------------------------------------------


@given(
    st.tuples(shares, shares).map(sorted),
    st.tuples(shares, shares).map(sorted),
    st.sampled_from(
        [(720, 1280), (1080, 1920), (2160, 3840), (480, 640), (1280, 720), (200, 300), (90, 1000)]
    ),
    st.sampled_from([128, 288, 448, 640]),
)
def test_a_region_lies_in_the_picture_and_costs_no_more(down, across, shape, width):
    size = network_size(*shape, width)
    box = Box(
        down[0], max(down[1], down[0] + 1 / shape[0]), across[0], max(across[1], across[0] + 1 / shape[1])
    )
    region = region_for(box, shape, size)
    assert region.height * region.width <= size[0] * size[1]
    assert all(side % 32 == 0 for side in (*region.picture, region.height, region.width))
    assert 0 <= region.top <= region.picture[0] - region.height
    assert 0 <= region.left <= region.picture[1] - region.width
    clipped = Box(*(min(1.0, side) for side in box))
    assert region.holds(clipped)
    if not region.is_whole:
        zoom = region.picture[0] / size[0]
        assert SMALLEST_ZOOM - 0.2 < zoom < LARGEST_ZOOM + 0.2  # sides are multiples of 32
        assert region.picture[0] <= shape[0] + 16


def test_people_who_fill_the_picture_need_no_region():
    assert region_for(Box(0.05, 1, 0.1, 0.9), SHAPE, SIZE).is_whole
    assert region_for(None, SHAPE, SIZE).is_whole
    assert region_for(Box(0.4, 0.5, 0.4, 0.5), (256, 448), SIZE).is_whole  # nothing more to be seen


def test_a_figure_is_seen_as_large_as_it_may_be():
    region = region_for(Box(0.05, 0.95, 0.4, 0.6), SHAPE, SIZE)
    assert region.picture[0] / SIZE[0] > 1.4
    assert region.height * region.width > 0.8 * SIZE[0] * SIZE[1]


def test_cut_and_pasted_it_lies_where_it_was():
    region = Region((128, 192), 32, 0, 64, 96)
    picture = torch.rand(1, 1, 128, 192)
    back = region.paste(region.cut(picture))
    inner = (..., slice(32 + FADE, 96 - FADE), slice(0, 96 - FADE))  # on the left the picture itself ends
    assert torch.equal(back[inner], picture[inner])
    outside = back.clone()
    outside[..., 32:96, 0:96] = 0
    assert not outside.any()
    assert back.shape == picture.shape
    assert (back <= picture).all()
    assert float(back[0, 0, 32, 10]) < 0.1  # fades towards nobody


def test_a_matte_of_another_region():
    """For the temporal blend where the region changes."""
    picture = F.avg_pool2d(torch.rand(1, 1, 256, 448), 31, 1, 15)
    first, second = Region((256, 448), 0, 64, 256, 192), Region((320, 544), 0, 128, 320, 160)
    found = Look(first, first.cut(picture)).at(second)
    wanted = second.cut(F.interpolate(picture, (320, 544), mode="bilinear"))
    assert torch.allclose(found, wanted, atol=1e-6)
    assert Look(first, picture).at(first) is picture


def test_where_somebody_is():
    alpha = torch.zeros(10, 20)
    assert box_of(alpha) is None
    alpha[2:5, 8:11] = 0.5
    assert box_of(alpha) == Box(0.2, 0.5, 0.4, 0.55)
    window = Region((64, 128), 32, 32, 32, 64)
    alpha = torch.zeros(1, 1, 32, 64)
    assert Look(window, alpha).box is None
    alpha[..., 8:16, :32] = 1
    assert Look(window, alpha).box == Box(40 / 64, 48 / 64, 32 / 128, 64 / 128)


# --- following ---------------------------------------------------------------------------------------


class Scene:
    """White squares are people, and the network sees just that."""

    def __init__(self, *, fixed: bool = False) -> None:
        self.looks: list[tuple[int, int]] = []
        self.gaze = Gaze(self.network, SHAPE, SIZE, fixed=fixed)

    def network(self, image: Tensor) -> Tensor:
        self.looks.append((image.shape[2], image.shape[3]))
        return image[:, :1].clamp(0, 1)

    def show(self, *people: tuple[int, int, int, int]) -> Tensor:
        """A frame with people at top, bottom, left, right; returns the matte at the frame's size."""
        frame = torch.zeros(1, 3, *SHAPE)
        for top, bottom, left, right in people:
            frame[..., top:bottom, left:right] = 1

        def see(size: tuple[int, int]) -> Tensor:
            return F.interpolate(frame, size, mode="area")

        self.frame = frame
        patches = see((SIZE[0] // 8, SIZE[1] // 8))
        region, alpha = self.gaze.follow(see(self.gaze.region.picture), patches, see)
        return F.interpolate(region.paste(alpha), SHAPE, mode="bilinear")

    def missed(self, alpha: Tensor) -> float:
        """Share of the people that the matte lacks."""
        truth = self.frame[:, :1]
        return float((truth - alpha).clamp(min=0).sum() / truth.sum())


SMALL = (100, 650, 500, 640)


def test_somebody_small_is_seen_closer_from_the_first_frame_on():
    scene = Scene()
    scene.show(SMALL)
    assert scene.looks == [SIZE, (scene.gaze.region.height, scene.gaze.region.width)]
    assert not scene.gaze.region.is_whole
    for _ in range(FRAMES_KEPT - 1):
        assert scene.missed(scene.show(SMALL)) < 0.02
    assert len(scene.looks) == 2 + FRAMES_KEPT - 1  # one look a frame
    scene.show(SMALL)
    assert scene.looks[-2:] == [(scene.gaze.region.height, scene.gaze.region.width), SIZE]  # and one around


def test_somebody_who_walks_is_never_cut_off():
    scene = Scene()
    for step in range(60):
        left = 100 + 8 * step
        assert scene.missed(scene.show((100, 650, left, left + 140))) < 0.03, step
    assert not scene.gaze.region.is_whole
    assert len(scene.looks) < 2.5 * 60


def test_an_arm_stretched_out_at_once_is_seen_at_once():
    scene = Scene()
    for _ in range(3):
        scene.show(SMALL)
    alpha = scene.show(SMALL, (300, 340, 500, 1100))
    assert scene.missed(alpha) < 0.03


def test_somebody_who_comes_in_is_seen_at_once_where_nothing_else_moves():
    scene = Scene()
    for _ in range(FRAMES_UNSEEN + 2):
        scene.show(SMALL)
    assert scene.missed(scene.show(SMALL, (200, 700, 1100, 1200))) < 0.03


def test_and_soon_where_all_moves():
    scene = Scene()
    late = 0
    for number in range(3 * FRAMES_UNSEEN):
        noise = (0, 20, 40 * (number % 2), 40 * (number % 2) + 40)  # something flickers far away, nobody
        newcomer = [(200, 700, 1100, 1200)] if number >= FRAMES_UNSEEN + 3 else []
        alpha = scene.show(SMALL, noise, *newcomer)
        late += newcomer != [] and scene.missed(alpha) > 0.1
    assert late <= FRAMES_UNSEEN


def test_when_people_leave_all_is_looked_at():
    scene = Scene()
    for _ in range(3):
        scene.show(SMALL)
    scene.show()
    assert scene.gaze.region.is_whole
    count = len(scene.looks)
    for _ in range(5):
        scene.show()
    assert scene.looks[count:] == [SIZE] * 5


def test_a_region_stays_while_it_serves_and_tightens_in_time():
    scene = Scene()
    for _ in range(3):
        scene.show(SMALL)
    first = scene.gaze.region
    scene.show(SMALL, (300, 340, 300, 900))  # an arm
    wider = scene.gaze.region
    assert wider != first
    for _ in range(FRAMES_KEPT - 1):
        scene.show(SMALL)
        assert scene.gaze.region == wider
    for _ in range(FRAMES_KEPT + 1):
        scene.show(SMALL)
    assert scene.gaze.region.picture == first.picture


def test_regions_can_be_left_out():
    scene = Scene(fixed=True)
    for _ in range(5):
        scene.show(SMALL)
    assert scene.looks == [SIZE] * 5


# --- with the network --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far_away() -> tuple[np.ndarray, np.ndarray]:
    """The astronaut, cut out of her portrait and small before a plain room, and her mask."""
    portrait = np.ascontiguousarray(astronaut()[:301, 60:401])  # without her helmet
    alpha = Matter(device="cpu", precision="float32").alpha(portrait)
    layers = torch.from_numpy(np.dstack([portrait, 255 * alpha])).permute(2, 0, 1)[None].float()
    person = F.interpolate(layers, (240, 272), mode="area")[0].permute(1, 2, 0).numpy()
    scene = np.full((720, 1280, 3), (96, 120, 140), np.float32)
    scene += np.random.default_rng(1).normal(0, 4, scene.shape)
    mask = np.zeros((720, 1280), np.float32)
    mask[480:, 300:572] = person[..., 3] / 255
    scene[480:, 300:572] += (person[..., :3] - scene[480:, 300:572]) * mask[480:, 300:572, None]
    return np.clip(scene, 0, 255).astype(np.uint8), mask


def test_somebody_far_away_gets_a_better_edge(far_away: tuple[np.ndarray, np.ndarray]) -> None:
    rgb, mask = far_away
    found = Matter(device="cpu", precision="float32").alpha(rgb)
    plain = Matter(device="cpu", precision="float32", regions=False).alpha(rgb)
    assert np.abs(found - mask).mean() < 0.7 * np.abs(plain - mask).mean()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_in_turned_frames_too(far_away: tuple[np.ndarray, np.ndarray], rotation: int) -> None:
    """As phones write them: what is coded is turned, and so is the matte."""
    rgb, mask = far_away
    turns = rotation // 90
    stream = Matter(device="cpu", precision="float32").stream()
    upright = frame_of(rgb)
    planes = [torch.rot90(plane, -turns).contiguous() for plane in upright.planes]
    frame = replace(upright, planes=planes, rotation=rotation)
    alpha = stream.network_alpha(frame)
    alpha = torch.rot90(alpha, turns)
    assert alpha.shape[0] > network_size(720, 1280, 448)[0]  # a region was chosen
    large = F.interpolate(alpha[None, None], (720, 1280), mode="bilinear")[0, 0].numpy()
    assert np.abs(large - mask).mean() < 0.02


@pytest.mark.parametrize(("word", "regions"), [("auto", True), ("off", False)])
def test_the_option(word: str, regions: bool) -> None:
    words = ["in.mp4", "-o", "out.mp4", "--device", "cpu", "--precision", "float32", "--regions", word]
    matter = make_matter(build_parser().parse_args(words))
    assert matter.regions is regions
    assert ("no regions" in matter.description) is not regions

"""Augmentation: geometry, people before other rooms, light and camera faults."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from training_sets import person

from training import augment, sets
from training.pairs import Sample


@pytest.mark.parametrize("bars", [None, (0, 0, 0)])
@pytest.mark.parametrize("seed", range(12))
def test_image_matte_and_weight_move_together(seed, bars):
    _, mask = person(seed, rows=201 + seed, columns=155)
    matte = cv2.GaussianBlur(mask, (9, 9), 0)
    view = augment.covering(201 + seed, 155, 64, 96, rng=np.random.default_rng(seed))
    view = replace(view, scale=view.scale * 0.8)
    moved = augment.move_sample(Sample(np.dstack([matte] * 3), matte, 255 - matte), view, 64, 96, bars=bars)
    assert moved.image.shape == (64, 96, 3)
    for channel in range(3):
        np.testing.assert_array_equal(moved.image[..., channel], moved.matte)
    assert np.abs(moved.weight.astype(int) + moved.matte - 255).max() <= 1  # bars: wholly known to be nobody


def test_warp_gives_the_crop_asked_for(root):
    sample = sets.read(root / "portraits-train.tar")[0].decode()
    for seed in range(40):
        moved = augment.warp(sample, 64, 96, rng=np.random.default_rng(seed))
        assert moved.image.shape == (64, 96, 3)
        assert moved.matte.shape == (64, 96)
        assert moved.weight is None


def test_crops_that_cover_show_nothing_but_the_picture():
    """No streaks: what lay outside used to repeat the edge pixel, in about one crop in ten."""
    large = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rows, columns = (int(side) for side in rng.integers(90, 400, 2))
        view = augment.covering(rows, columns, 128, 96, rng=rng)
        if abs(view.angle) > augment.LARGEST_COVERED_ANGLE:
            large += 1  # its corners are mirrored
            continue
        inverse = np.linalg.inv(np.vstack([view.matrix(rows, columns, 128, 96), [0, 0, 1]]))
        corners = np.array([[x, y, 1] for x in (-0.5, 95.5) for y in (-0.5, 127.5)])
        x, y, _ = inverse @ corners.T
        assert x.min() > -0.51
        assert x.max() < columns - 0.49
        assert y.min() > -0.51
        assert y.max() < rows - 0.49
    assert large < 30


@pytest.mark.parametrize("augmentation", ["best", "paper"])
def test_no_crop_repeats_its_edge(augmentation):
    """Noise has no two equal neighbours in a row, so streaks show as equal rows or columns."""
    noise = np.random.default_rng(0).integers(1, 256, (160, 120, 3), np.uint8)
    sample = Sample(noise, np.full((160, 120), 255, np.uint8))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        if augmentation == "best":
            moved = augment.warp(sample, 96, 128, rng=rng)
        else:
            moved = augment.paper("x", lambda _: sample, 96, 128, rng=rng)
        image, person_here = moved.image.astype(int), moved.matte > 0
        for axis in (0, 1):
            same = (np.diff(image, axis=axis) == 0).all(2) & np.delete(person_here, 0, axis)
            assert same.mean() < 0.03


def test_warp_that_shrinks_lands_where_one_that_does_not_does():
    """Pictures shrink before they are turned; that must not shift them."""
    image, mask = person(3, rows=301, columns=233)
    view = augment.View(0.31, 4.0, True, (11.0, -7.0))
    moved = augment.move_sample(Sample(image, mask), view, 96, 64, bars=(0, 0, 0)).matte
    matrix = view.matrix(301, 233, 96, 64)
    direct = augment.move(cv2.GaussianBlur(mask, (0, 0), 0.8), matrix, 96, 64, border=cv2.BORDER_CONSTANT)
    centre = [np.argwhere(m >= 128).mean(0) for m in (moved, direct)]
    assert np.abs(centre[0] - centre[1]).max() < 0.25


def test_mirrored_views_are_each_others_mirror_image():
    image, mask = person(3)
    plain = augment.move_sample(Sample(image, mask), augment.View(1.0), 96, 72)
    mirrored = augment.move_sample(Sample(image, mask), augment.View(1.0, mirrored=True), 96, 72)
    np.testing.assert_array_equal(plain.image, image)
    np.testing.assert_array_equal(mirrored.image, image[:, ::-1])
    np.testing.assert_array_equal(mirrored.matte, mask[:, ::-1])


@pytest.mark.parametrize("seed", range(12))
def test_composite_mixes_exactly_by_its_matte(seed):
    """White people before black rooms: what comes out is the matte itself."""
    _, mask = person(seed, rows=150, columns=120)
    white, black = np.full((150, 120, 3), 255, np.uint8), np.zeros((90, 160, 3), np.uint8)
    made = augment.composite([Sample(white, mask)], black, 96, 128, rng=np.random.default_rng(seed))
    assert made.matte.shape == (96, 128)
    assert made.matte.any()
    found = made.image.astype(int) - np.dstack([made.matte] * 3)
    assert found.max() <= 0  # where the white picture ends a soft edge is darker
    inside = cv2.erode(made.matte, np.ones((5, 5), np.uint8)) == 255
    assert (found[inside] == 0).all()


def stand(mask, seed, height=96, width=128):
    white, black = np.full((*mask.shape, 3), 255, np.uint8), np.zeros((90, 160, 3), np.uint8)
    rng = np.random.default_rng(seed)
    return augment.composite([Sample(white, mask)], black, height, width, rng=rng).matte >= 128


@pytest.mark.parametrize("seed", range(40))
def test_bodies_that_a_picture_cuts_off_do_not_end_in_mid_air(seed):
    mask = np.zeros((150, 120), np.uint8)
    mask[60:, :70] = 255  # an arm leaves on the left
    found = stand(mask, seed)
    assert found[:, 0].any() or found[:, -1].any()
    assert found[-1].any()  # and they stand on the ground
    mask[0:, 30:60] = 255  # a head leaves above
    assert stand(mask, seed)[0].any()
    mask[60:] = 255  # both arms leave
    found = stand(mask, seed)
    assert found[-1].mean() > 0.9
    assert found[0].any()


def test_people_before_rooms_keep_their_heads():
    """Wide crops of portraits that reach from side to side used to show trunks without heads."""
    mask = np.zeros((160, 120), np.uint8)
    mask[70:] = 255
    mask[30:70, 45:75] = 255  # head and neck
    heads = 0
    for seed in range(100):
        found = stand(mask, seed)
        assert found[-1].mean() > 0.9
        heads += not found[0].any()
    assert heads > 70


@pytest.mark.parametrize(
    ("name", "width", "composites", "share"),
    [
        ("portraits-train", 72, 1, 0.12),
        ("portraits-train", 72, 4, 0.48),
        ("portraits-train", 72, 0, 0),
        ("portraits-train", 192, 1, 0.5),  # wide
        ("portraits-train", 192, 0, 0),
        ("people-train", 192, 9, 0),  # their masks have holes
        ("studio-train", 72, 1, 1),
    ],
)
def test_how_often_people_are_cut_out(name, width, composites, share):
    image, mask = person(1)
    rooms = 0
    for seed in range(200):
        drawn = []

        def draw(wanted, drawn=drawn):
            drawn.append(wanted)
            return Sample(image, mask)

        rng = np.random.default_rng(seed)
        augment.best(name, draw, 96, width, rng=rng, composites=composites)
        rooms += sets.BACKGROUNDS in drawn
        assert set(drawn) <= {name, sets.BACKGROUNDS}
    assert rooms / 200 == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


def test_second_person_stands_before_the_first():
    left, right = np.zeros((96, 128), np.uint8), np.zeros((96, 128), np.uint8)
    left[30:, 10:90] = 255
    right[30:, 40:100] = 255
    red, blue = np.zeros((96, 128, 3), np.uint8), np.zeros((96, 128, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 255
    both = [Sample(red, left), Sample(blue, right)]
    room = np.zeros((96, 128, 3), np.uint8)
    seen = set()
    for seed in range(20):
        made = augment.composite(both, room, 96, 128, rng=np.random.default_rng(seed))
        image = made.image.astype(int)
        np.testing.assert_allclose(
            image[..., 0] + image[..., 2], made.matte, atol=45
        )  # rooms differ in light
        seen.add(bool((image[..., 0] > 200).any() and (image[..., 2] > 200).any()))
    assert True in seen


def coloured(number, mask):
    """Somebody all of whose pixels have the red value ``number``."""
    image = np.zeros((*mask.shape, 3), np.uint8)
    image[..., 0] = number
    return Sample(image, mask)


def test_groups_stand_side_by_side_the_nearer_before_the_others():
    mask = np.zeros((150, 100), np.uint8)
    mask[30:, 20:80] = 255  # a trunk, cut off below
    room = np.zeros((96, 192, 3), np.uint8)
    counts = set()
    for seed in range(40):
        drawn = []

        def draw(drawn=drawn):
            drawn.append(60 + 20 * len(drawn))  # the order in which they are stood there
            return coloured(drawn[-1], mask)

        made = augment.group(draw, room, 96, 192, rng=np.random.default_rng(seed))
        assert made.matte.shape == (96, 192)
        red = made.image[..., 0]
        rows = [np.count_nonzero((red == number).any(1)) for number in drawn]
        assert rows[-1] >= max(rows) - 0.15 * 96  # the nearest are the largest, but for where they begin
        y, x = np.nonzero(red == drawn[-1])
        assert len(y) == (np.ptp(y) + 1) * (np.ptp(x) + 1)  # and nobody stands before them
        assert y.max() == 95  # their trunk does not end in mid-air
        counts.add(len(drawn))
    assert counts == {2, 3, 4, 5, 6, 7}  # the crop is twice as wide as high


def test_groups_leave_out_whom_their_picture_cuts_off_at_both_sides():
    """They would have to fill the crop."""
    whole, cut = np.zeros((150, 100), np.uint8), np.full((150, 100), 255, np.uint8)
    whole[30:, 20:80] = 255
    room = np.zeros((96, 192, 3), np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        turns = iter([coloured(250, cut), coloured(100, whole)] * 50)
        made = augment.group(lambda turns=turns: next(turns), room, 96, 192, rng=rng)
        assert made.image[..., 0].max() == 100
    nobody = augment.group(lambda: coloured(250, cut), room, 96, 192, rng=np.random.default_rng(0))
    assert not nobody.matte.any()


@pytest.mark.parametrize("groups", [0.0, 0.5, 1.0])
def test_how_often_groups_are_made(groups, monkeypatch):
    image, mask = person(1)
    made = []
    monkeypatch.setattr(
        augment, "group", lambda *_, **__: made.append(1) or Sample(image[:96, :72], mask[:96, :72])
    )
    for seed in range(200):
        rng = np.random.default_rng(seed)
        augment.best("studio-train", lambda _: Sample(image, mask), 96, 72, rng=rng, groups=groups)
        augment.best("people-train", lambda _: Sample(image, mask), 96, 72, rng=rng, groups=groups)
    assert len(made) / 200 == pytest.approx(groups, abs=0.1 if 0 < groups < 1 else 0)


def test_people_seen_to_their_feet_are_shown_from_near_too():
    """Or the network knows trousers only with shoes below them."""
    figure = np.zeros((200, 100), np.uint8)
    figure[10:190, 40:60] = 255
    cut = figure.copy()
    cut[190:, 40:60] = 255

    def heights(matte):
        views = [augment.place(matte, 96, 96, rng=np.random.default_rng(seed)) for seed in range(80)]
        return [view.scale * 200 / 96 for view in views]

    assert min(heights(figure)) < 0.7
    assert max(heights(figure)) > 2
    assert max(heights(cut)) <= 1.25


def test_what_is_unknown_of_one_person_stays_so():
    mask = np.full((96, 72), 255, np.uint8)
    image = np.zeros((96, 72, 3), np.uint8)
    unknown = Sample(image, mask, np.zeros_like(mask))
    rng = np.random.default_rng(0)
    made = augment.composite([Sample(image, mask), unknown], image, 96, 128, rng=rng)
    assert (made.weight == 0).any()


def test_papers_augmentation_turns_flips_and_lights():
    image = np.full((160, 120, 3), 100, np.uint8)
    matte = np.zeros((160, 120), np.uint8)
    matte[:, :30] = 255
    lights, sides = set(), set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = augment.paper("x", lambda _: Sample(image, matte), 160, 120, rng=rng)
        lights.add(float(np.median(made.image[made.image > 0])))
        sides.add(made.matte[80, :40].mean() > made.matte[80, -40:].mean())
        assert made.matte[made.image[..., 0] == 0].max(initial=0) < 8  # nobody outside the picture
    assert 70 <= min(lights) < 80
    assert 120 < max(lights) <= 130
    assert sides == {True, False}


def test_photometric_keeps_shape_and_type_and_gives_no_constant():
    image, _ = person(1)
    for seed in range(30):
        changed = augment.photometric(image, np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert changed.std() > 5

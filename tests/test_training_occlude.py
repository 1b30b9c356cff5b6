"""Tables before people, and patterns on them."""

from __future__ import annotations

import numpy as np
import pytest

from training import augment, occlude
from training.pairs import Array, Sample

HEIGHT, WIDTH = 160, 120
RED = (200, 40, 40)


def somebody(weight: int | None = None) -> Sample:
    """Red, from row 40 to the crop's lower edge, before grey."""
    image, matte = np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    image[40:, 30:90], matte[40:, 30:90] = RED, 255
    return Sample(image, matte, None if weight is None else np.full_like(matte, weight))


def green(height: int, width: int) -> Array:
    return np.full((height, width, 3), (0, 255, 0), np.uint8)


@pytest.mark.parametrize("seed", range(30))
def test_who_sits_at_a_table_ends_where_it_begins(seed: int) -> None:
    before = somebody(weight=0)
    after = occlude.table(before, green, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(after.matte[:80], before.matte[:80])  # no head is hidden
    changed = (after.image != before.image).any(2)
    hidden = changed & (after.matte == 0)
    assert not after.matte[-1].all()
    assert hidden[-1].any()
    assert (after.matte <= before.matte).all()
    np.testing.assert_array_equal(changed & (after.matte == 255), False)
    assert after.weight is not None
    wholly_table = (after.image == green(HEIGHT, WIDTH)).all(2)
    assert (after.weight[wholly_table] == 255).all()  # nobody is there, surely
    assert after.weight[-1].any()
    assert not after.weight[:80].any()


@pytest.mark.parametrize("seed", range(30))
def test_a_pattern_is_part_of_who_has_it(seed: int) -> None:
    before = somebody()
    after = occlude.pattern(before, green, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(after.matte, before.matte)
    changed = (after.image != before.image).any(2)
    assert changed.any()
    assert not changed[before.matte == 0].any()


@pytest.mark.parametrize("change", [occlude.table, occlude.pattern])
def test_where_nobody_is_nothing_changes(change: object) -> None:
    nobody = somebody()._replace(matte=np.zeros((HEIGHT, WIDTH), np.uint8))
    assert change(nobody, green, rng=np.random.default_rng(0)) is nobody


def test_surfaces_are_rooms_stripes_and_single_colours() -> None:
    rooms, spreads = 0, []
    for seed in range(200):
        made = occlude.surface(64, 48, green, rng=np.random.default_rng(seed))
        assert made.shape == (64, 48, 3)
        if (made == green(64, 48)).all():
            rooms += 1
        else:
            spreads.append(made.astype(float).std((0, 1)).max())
    assert 80 < rooms < 120
    assert min(spreads) < 10
    assert max(spreads) > 40


@pytest.mark.parametrize("occluders", [0, 1, 5])
def test_how_often(occluders: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for name in ("table", "pattern"):
        monkeypatch.setattr(occlude, name, lambda sample, *_, name=name, **__: seen.append(name) or sample)
    for seed in range(1000):
        for name in ("portraits-train", "portraits-pseudo"):  # of these nobody is cut out
            rng = np.random.default_rng(seed)
            augment.best(name, lambda _: somebody(), 64, 64, rng=rng, occluders=occluders)
    for name, chance in (("table", augment.TABLE_CHANCE), ("pattern", augment.PATTERN_CHANCE)):
        assert seen.count(name) / 1000 == pytest.approx(occluders * chance, abs=0.03 if occluders else 0)

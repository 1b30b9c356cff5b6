"""Masks drawn by hand to mattes: rims of background go, soft outlines come."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from training_sets import jpg, png, write_tar

from banet_stream.errors import InputError, Interrupted, UsageError
from training import augment, card, sets, soften

SIDE = 240
SKIN, WALL = np.array([200, 150, 120]), np.array([60, 80, 110])


def portrait() -> tuple[np.ndarray, np.ndarray]:
    """A picture, slightly noisy, and its true alpha: somebody with an outline of a few soft pixels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    alpha = np.clip((90 - np.hypot(x - 120, y - 130)) / 3, 0, 1)[..., None]
    noise = np.random.default_rng(0).normal(0, 2, (SIDE, SIDE, 3))
    return np.clip(alpha * SKIN + (1 - alpha) * WALL + noise, 0, 255).astype(np.uint8), alpha[..., 0]


def drawn(alpha: np.ndarray, outside: int) -> np.ndarray:
    """The hard mask of a hand that draws so many pixels too far out."""
    mask = np.where(alpha > 0.5, np.uint8(255), np.uint8(0))
    return cv2.dilate(mask, np.ones((2 * outside + 1,) * 2, np.uint8))


@pytest.mark.parametrize("outside", [0, 1, 2])
def test_the_matte_is_nearer_to_the_truth_than_the_mask(outside: int) -> None:
    image, alpha = portrait()
    mask = drawn(alpha, outside)
    found = soften.soften(image, mask)
    assert found.dtype == np.uint8
    error = np.abs(found / 255 - alpha)
    assert error.mean() < 0.4 * np.abs(mask / 255 - alpha).mean()
    assert error[alpha == 1].max() < 0.1
    assert error[alpha == 0].max() < 0.2


def test_far_from_the_outline_everything_stays() -> None:
    image, alpha = portrait()
    image[125:135, 115:125] = WALL  # a badge in the colour of the wall, deep inside
    found = soften.soften(image, drawn(alpha, 2))
    assert (found[125:135, 115:125] == 255).all()
    y, x = np.mgrid[:SIDE, :SIDE]
    assert (found[np.hypot(x - 120, y - 130) > 98] == 0).all()


def test_at_the_pictures_edge_somebody_goes_on() -> None:
    """The lower edge is no outline."""
    image, alpha = portrait()
    image, mask = image[:130], drawn(alpha, 0)[:130]
    assert (soften.soften(image, mask)[-1, 50:190] == 255).all()


def test_what_is_narrower_than_the_band_is_not_lost() -> None:
    """A strap as dark as the wall, beside somebody large."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, :130] = 255
    mask[100:106] = 255
    image = np.where(mask[..., None] > 0, SKIN, WALL).astype(np.uint8)
    image[100:106, 130:] = WALL
    known = soften.trimap(mask > 0)
    assert (known[102:104, 145:] == 1).all()
    assert (soften.soften(image, mask)[102:104, 145:] == 255).all()


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_that_is_everywhere_alike_stays(value: int) -> None:
    image, _ = portrait()
    matte = np.full((SIDE, SIDE), value, np.uint8)
    np.testing.assert_array_equal(soften.soften(image, matte), matte)


def test_the_command_makes_a_set_with_the_same_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, alpha = portrait()
    weight = np.full((SIDE, SIDE), 255, np.uint8)
    weight[:10] = 0
    files = {"a.jpg": jpg(image), "a.png": png(drawn(alpha, 2)), "a.weight.png": png(weight)}
    files |= {"b.jpg": jpg(image[:, ::-1]), "b.png": png(drawn(alpha, 1)[:, ::-1])}
    source, out, shown = write_tar(tmp_path / "masks.tar", files), tmp_path / "soft.tar", tmp_path / "s.png"
    soften.main(["--data", str(source), "--out", str(out), "--sheet", str(shown)])
    assert "2 pictures" in capsys.readouterr().out
    assert cv2.imread(str(shown)) is not None
    first, second = sets.read(out)
    assert first.image == files["a.jpg"]  # the very file
    sample = first.decode()
    np.testing.assert_array_equal(sample.weight, weight)
    assert ((sample.matte > 20) & (sample.matte < 235)).sum() > 200
    assert second.decode().weight is None


def test_it_counts_as_the_set_it_was_made_of() -> None:
    """In how often people are cut out, and on the model card."""
    for name in ("portraits-train", "portraits-pseudo"):
        assert augment.composite_chance(f"{name}-matted") == augment.composite_chance(name)
        assert card.describe(f"{name}-matted").startswith(card.describe(name))
    assert "training.soften" in card.describe("portraits-train-matted")
    assert "training.soften" not in card.describe("fashion-soft")


def test_a_set_is_not_written_over_itself(tmp_path: Path) -> None:
    image, alpha = portrait()
    source = write_tar(tmp_path / "masks.tar", {"a.jpg": jpg(image), "a.png": png(drawn(alpha, 2))})
    before = source.read_bytes()
    with pytest.raises(SystemExit) as ended:
        soften.main(["--data", str(source), "--out", str(source)])
    assert ended.value.code == UsageError.exit_code
    assert source.read_bytes() == before


def test_a_set_that_is_not_there_is_named_also_where_the_result_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soft.tar"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(SystemExit) as ended:
        soften.main(["--data", str(tmp_path / "none.tar"), "--out", str(out)])
    assert ended.value.code == InputError.exit_code
    assert "none.tar" in capsys.readouterr().err
    assert out.read_bytes() == b"of an earlier run"


def test_a_damaged_picture_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    image, alpha = portrait()
    files = {"a.jpg": jpg(image), "a.png": png(drawn(alpha, 2)), "b.jpg": b"\xff\xd8", "b.png": b"no"}
    source, out = write_tar(tmp_path / "masks.tar", files), tmp_path / "soft.tar"
    with pytest.raises(SystemExit) as ended:
        soften.main(["--data", str(source), "--out", str(out)])
    assert ended.value.code == InputError.exit_code
    assert [path.name for path in tmp_path.iterdir()] == ["masks.tar"]


def test_ctrl_c_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, alpha = portrait()
    folder = tmp_path / "sets"
    folder.mkdir()
    write_tar(folder / "some.tar", {"a.jpg": jpg(picture), "a.png": png(drawn(alpha, 2))})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(soften, "soften", interrupt)
    with pytest.raises(SystemExit) as stopped:
        soften.main(["--data", str(folder / "some.tar"), "--out", str(tmp_path / "some-matted.tar")])
    assert stopped.value.code == Interrupted.exit_code
    assert capsys.readouterr().err == "training.soften: interrupted\n"
    assert [p.name for p in tmp_path.iterdir()] == ["sets"]

"""Self-training: labels from several views, and where they count."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from training_sets import jpg, person, png, room, write_sets, write_tar

from banet_stream.errors import InputError, UsageError
from training import composites, data, distributed, evaluate, pseudo, sets, train
from training.pairs import Sample


def steps(rgb):
    """A view whose matte is the picture's red channel."""
    return rgb[..., 0].astype(np.float32) / 255


def test_label_counts_by_how_decided_it_is_and_along_outlines():
    mean = np.zeros((70, 320), np.float32)
    mean[:, 62:66], mean[:, 66:] = (0.2, 0.4, 0.6, 0.8), 1  # the outline of somebody on the right
    mean[30:40, 10:20] = 0.45  # undecided, far from it
    mean[30:40, 100:110] = 0.725
    found = pseudo.label(mean)
    np.testing.assert_array_equal(found.matte, np.where(mean >= 0.5, 255, 0))
    assert (found.weight[:, 60:68] == 255).all()
    assert (found.weight[33:37, 13:17] == round(255 * 0.05 / 0.45)).all()
    assert (found.weight[33:37, 103:107] == 128).all()
    assert found.share == found.weight.mean() / 255


def test_teachers_see_mirrored_pictures_too():
    rgb = np.zeros((4, 6, 3), np.uint8)

    def left(picture):
        matte = np.zeros(picture.shape[:2], np.float32)
        matte[:, :2] = 1
        return matte

    np.testing.assert_array_equal(pseudo.look([left], rgb)[0], [0.5, 0.5, 0, 0, 0.5, 0.5])


def test_mattes_of_another_program_count_as_much_as_the_networks(tmp_path):
    path = write_tar(tmp_path / "u.tar", {"a.jpg": jpg(person(1)[0])})
    half, pairs = person(1)[1].copy(), sets.read_unlabelled(path)
    half[: len(half) // 2] = 255 - half[: len(half) // 2]  # of another opinion above
    nobody = [lambda rgb: np.zeros(rgb.shape[:2], np.float32)]

    def labels():
        return list(pseudo.label_all(nobody, pairs, 0.0, tmp_path))

    with pytest.raises(InputError, match=r"a\.png: is not there"):
        labels()
    (tmp_path / "a.png").write_bytes(png(half[1:]))
    with pytest.raises(InputError, match="its size"):
        labels()
    (tmp_path / "a.png").write_bytes(png(half))
    [(_, found)] = labels()
    np.testing.assert_array_equal(found.matte == 255, half == 255)  # a mean of one half is person
    assert (found.weight[half == 255] == 0).all()
    assert (found.weight[half == 0] == 255).all()


def test_pseudo_command_makes_a_set_that_can_be_trained_on(tmp_path, monkeypatch, capsys):
    root = write_sets(tmp_path / "sets")
    files = {f"u{i}.jpg": jpg(person(i)[0]) for i in range(3)} | {"dull.jpg": jpg(room(1))}
    unlabelled = write_tar(root / "unlabelled.tar", files)

    def red(picture):  # certain about people, undecided about dull rooms without anybody
        small = steps(picture)
        return np.where(small > 0.6, 1.0, 0.0 if small.max() > 0.6 else 0.5).astype(np.float32)

    monkeypatch.setattr(pseudo.evaluate, "predictor", lambda model, **_: red)
    sheet = tmp_path / "sheet.png"
    out = root / "pseudo.tar"
    pseudo.main(["--data", str(unlabelled), "--out", str(out), "--sheet", str(sheet)])
    assert "3 of 4 pictures; 100.0 % of their pixels count" in capsys.readouterr().out
    assert cv2.imread(str(sheet)) is not None
    for i, pair in enumerate(sets.read(out)):
        assert pair.image == files[f"u{i}.jpg"]  # the very file
        sample = pair.decode()
        assert (sample.matte == person(i)[1]).mean() > 0.97
    weights = {"portraits-train": 0.5, "pseudo": 0.5}
    config = train.Config(data=str(root), out=str(tmp_path / "out"), sets=weights, batch=2)
    config = train.Config(**vars(config) | {"size_start": 64, "size_end": 64, "iterations": 1, "workers": 0})
    train.train(config)
    assert json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])["miou"] > 0


def test_weights_travel_with_the_crop(tmp_path):
    image, mask = person(1)
    weight = np.full_like(mask, 255)
    weight[:, :36] = 0
    root = write_sets(tmp_path / "sets")
    files = {"a.jpg": jpg(image), "a.png": png(mask), "a.weight.png": png(weight)}
    write_tar(root / "pseudo.tar", files)
    config = train.Config(data=str(root), sets={"pseudo": 1.0}, batch=4, size_start=64, size_end=64)
    samples, _ = train.open_data(config, range(1), distributed.World())
    found = data.prepare(samples.make(0), "cpu").weight
    assert 0.2 < found.mean() < 0.8
    assert found.shape == (4, 1, *samples.make(0).matte.shape[1:])


def test_network_that_is_sure_of_nothing_writes_nothing(tmp_path):
    pairs = sets.read(write_sets(tmp_path / "sets") / "backgrounds.tar")
    labelled = pseudo.label_all([lambda rgb: np.full(rgb.shape[:2], 0.5, np.float32)], pairs, 0.5)
    with pytest.raises(InputError, match="sure of no picture"):
        pseudo.write_tar(tmp_path / "out.tar", labelled)
    assert [p.name for p in tmp_path.iterdir()] == ["sets"]


def test_check_says_how_right_labels_are(tmp_path, monkeypatch, capsys):
    """A teacher that sees the upper half of every matte, is wrong where it is sure of the next quarter, and
    says nothing of the rest."""
    truth = np.zeros((80, 60), np.uint8)
    truth[:, :30] = 255
    write_tar(tmp_path / "known.tar", {"a.jpg": jpg(np.dstack([truth] * 3)), "a.png": png(truth)})
    seen = truth.astype(np.float32) / 255
    seen[40:60], seen[60:] = 0.0, 0.5

    def teach(picture):
        return seen if picture[0, 0, 0] > 128 else seen[:, ::-1]

    monkeypatch.setattr(pseudo.evaluate, "predictor", lambda *_, **__: teach)
    known = str(tmp_path / "known.tar")
    pseudo.main(["--check", known, "--smallest-share", "0.7"])
    # Person: 40 of 60 rows; background: 60 of 60 rows, and 20 more of the person's.
    counted = (40 / 60 + 60 / 80) / 2
    # In all: the undecided rows (mean one half) are labelled person, rightly on the left half only.
    everywhere = (60 / 100 + 60 / 100) / 2
    shares = f"{100 * counted:.1f} % where they count fully, {100 * everywhere:.1f} % everywhere"
    expected = f"1 of 1 pictures would stay; mIoU {shares}"
    assert expected in capsys.readouterr().out
    for words, error, message in (
        (["--check", known], InputError, "sure of no picture"),
        (["--check", known, "--data", known, "--out", "x.tar"], UsageError, "or --check alone"),
        (["--data", known], UsageError, "either --data and --out"),
    ):
        with pytest.raises(SystemExit) as caught:
            pseudo.main(words)
        assert caught.value.code == error.exit_code
        assert message in capsys.readouterr().err


def test_pictures_with_mattes_and_wrong_shares_are_refused(tmp_path, capsys):
    root = write_sets(tmp_path / "sets")
    for words, error in (
        (["--data", str(root / "portraits-train.tar")], InputError),
        (["--data", str(root / "backgrounds.tar"), "--smallest-share", "2"], UsageError),
    ):
        with pytest.raises(SystemExit) as caught:
            pseudo.main([*words, "--out", str(tmp_path / "out.tar")])
        assert caught.value.code == error.exit_code
    assert "has a matte, and must have none here" in capsys.readouterr().err


# Composites


def make(root, out, *more):
    composites.main(["--data", str(root), "--people", "portraits-train", "--out", str(out), *more])
    return sets.read(out)


def test_composites_are_a_set_with_known_mattes(tmp_path):
    root = write_sets(tmp_path / "sets")
    pairs = make(root, tmp_path / "a.tar", "--count", "4")
    assert [pair.key for pair in pairs] == [f"a.tar: {i:04}" for i in range(4)]
    for pair in pairs:
        image, matte, _ = pair.decode()
        assert image.shape == (360, 640, 3)
        inside = cv2.erode(matte, np.ones((9, 9), np.uint8)) == 255
        assert inside.any()
        # the tests' people are all of one colour
        assert abs(float(np.median(image[..., 0][inside])) - 230) < 12
    again = make(root, tmp_path / "b.tar", "--count", "4")
    assert [p.image for p in again] == [p.image for p in pairs]
    other = make(root, tmp_path / "c.tar", "--count", "4", "--seed", "2")
    assert [p.image for p in other] != [p.image for p in pairs]


def test_composite_clips_move_slowly_before_a_room_that_stands_still(tmp_path):
    root = write_sets(tmp_path / "sets")
    pairs = make(root, tmp_path / "clips.tar", "--count", "2", "--frames", "3")
    assert [pair.key for pair in pairs][:4] == [
        f"clips.tar: {k}" for k in ("0000-001", "0000-002", "0000-003", "0001-001")
    ]
    first, second, third = (pair.decode() for pair in pairs[:3])
    moved = [float(np.abs(first.matte.astype(int) - s.matte).mean()) for s in (second, third)]
    assert 0 < moved[0] < moved[1] < 10
    nobody = cv2.dilate(first.matte | second.matte, np.ones((9, 9), np.uint8)) == 0
    change = first.image[nobody].astype(int) - second.image[nobody]
    assert 0 < np.abs(change).mean() < 12  # noise alone
    assert not np.array_equal(first.image[nobody], second.image[nobody])
    predict = evaluate.Predict(lambda rgb: np.zeros(rgb.shape[:2], np.float32))
    scores, _ = evaluate.score(predict, pairs, clips=True)
    assert ["dtssd" in s.numbers for s in scores] == [False, True, True] * 2


def test_frames_of_long_clips_stay_in_order(tmp_path, monkeypatch):
    def clip(people, rooms, frames, rng):
        return [
            Sample(np.full((2, 2, 3), i % 256, np.uint8), np.full((2, 2), 255, np.uint8))
            for i in range(frames)
        ]

    monkeypatch.setattr(composites, "clip", clip)
    root = write_sets(tmp_path / "sets")
    pairs = make(root, tmp_path / "long.tar", "--count", "1", "--frames", "1100")
    assert [int(pair.decode().image.mean()) for pair in pairs] == [i % 256 for i in range(1100)]


def test_groups_hold_several_people(tmp_path):
    root = write_sets(tmp_path / "sets")
    pairs = make(root, tmp_path / "groups.tar", "--groups", "--count", "6")
    assert len(pairs) == 6
    people = []
    for pair in pairs:
        image, matte, _ = pair.decode()
        assert image.shape == (360, 640, 3)
        count, _, sizes, _ = cv2.connectedComponentsWithStats((matte >= 128).astype(np.uint8))
        people.append(np.count_nonzero(sizes[1:count, cv2.CC_STAT_AREA] > 500))
    assert max(people) > 1
    again = make(root, tmp_path / "again.tar", "--groups", "--count", "6")
    assert [p.image for p in again] == [p.image for p in pairs]


def test_composites_refuse_what_they_can_not_use(tmp_path, capsys):
    root = write_sets(tmp_path / "sets")
    nobody = np.zeros((96, 72), np.uint8)
    write_tar(root / "empty.tar", {"a.jpg": jpg(room(1)), "a.png": png(nobody)})
    for words, error in (
        (["--people", "empty", "--count", "2"], InputError),
        (["--count", "0"], UsageError),
        (["--groups", "--frames", "2"], UsageError),
    ):
        with pytest.raises(SystemExit) as caught:
            composites.main(["--data", str(root), "--out", str(tmp_path / "x.tar"), *words])
        assert caught.value.code == error.exit_code
    assert "hardly any picture" in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))

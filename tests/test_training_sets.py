"""Data sets as their owners publish them: small ones of the same shape, made here."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zlib

import av
import cv2
import numpy as np
import pytest
import scipy.io
from training_sets import jpg, person, png, room, write_sets, write_tar

from banet_stream.errors import InputError, UsageError
from training import augment, data, distributed, evaluate, sets, train


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def masks_of(path, **options):
    """Key -> the decoded sample."""
    return {pair.key: pair.decode() for pair in sets.read(path, **options)}


# Tars


def test_tar_with_weights_says_where_its_mattes_count(tmp_path):
    image, mask = person(1)
    weight = np.zeros_like(mask)
    weight[:40] = 255
    files = {"a.jpg": jpg(image), "a.png": png(mask), "a.weight.png": png(weight)}
    (sample,) = masks_of(write_tar(tmp_path / "s.tar", files)).values()
    np.testing.assert_array_equal(sample.weight, weight)
    np.testing.assert_array_equal(sample.matte, mask)
    files["a.weight.png"] = b"no picture"
    with pytest.raises(InputError, match=r"s\.tar: a: the weight can't be decoded"):
        masks_of(write_tar(tmp_path / "s.tar", files))
    files["a.weight.png"] = png(weight[:5])
    with pytest.raises(InputError, match=r"s\.tar: a: the weight is \[5, 72\], the picture \[96, 72\]"):
        masks_of(write_tar(tmp_path / "s.tar", files))


# images/ and masks/


def plain_folder(root, count=3):
    for i in range(count):
        image, mask = person(i)
        put(root / "images" / f"p{i}.jpg", jpg(image))
        put(root / "masks" / f"p{i}.png", png(mask))
    return root


def test_images_and_masks(tmp_path):
    found = masks_of(plain_folder(tmp_path / "mine"))
    assert list(found) == [f"mine: images/p{i}" for i in range(3)]
    for i, sample in enumerate(found.values()):
        np.testing.assert_array_equal(sample.matte, person(i)[1])
        assert sample.weight is None
    with pytest.raises(UsageError, match="has no parts"):
        sets.read(tmp_path / "mine", split="train")


def test_picture_without_mask_is_refused_or_skipped(tmp_path, capsys):
    root = plain_folder(tmp_path / "mine")
    (root / "masks" / "p1.png").unlink()
    with pytest.raises(InputError, match=r"mine: p1\.jpg has no .*p1\.png"):
        sets.read(root)
    assert len(sets.read(root, skip_broken=True)) == 2
    assert "skipped: mine: p1.jpg has no " in capsys.readouterr().err


# EG1800


def eg1800(root):
    for i in range(4):
        image, mask = person(i)
        put(root / "Images" / f"{i:05}.png", png(image))
        put(root / "Labels" / f"{i:05}.png", png(mask // 255))
    (root / "eg1800_train.txt").write_text("00000.png\n00002.png\n00003.png\n")
    (root / "eg1800_test.txt").write_text("00001.png\n")
    return root


def test_eg1800_has_classes_and_lists(tmp_path):
    root = eg1800(tmp_path / "eg1800")
    train_part = masks_of(root, split="train")
    assert [key[-5:] for key in train_part] == ["00000", "00002", "00003"]
    np.testing.assert_array_equal(train_part["eg1800: Images/00002"].matte, person(2)[1])
    assert [key[-5:] for key in masks_of(tmp_path / "eg1800:test")] == ["00001"]
    for split in ("", "val"):  # nobody trains on the test part by leaving a word out
        with pytest.raises(UsageError, match="say eg1800:test or eg1800:train"):
            sets.read(root, split=split)


# PFCN+


def mat(**matrices):
    file = io.BytesIO()
    scipy.io.savemat(file, matrices)
    return file.getvalue()


def test_pfcn_has_matlab_masks_and_lists(tmp_path):
    root = tmp_path / "pfcn"
    for i in (1, 2, 3):
        image, mask = person(i)
        put(root / "images_data_crop" / f"{i:05}.jpg", jpg(image))
        put(root / "images_mask" / f"{i:05}_mask.mat", mat(mask=mask // 255))
    put(root / "trainlist.mat", mat(trainlist=np.array([[1, 3]])))
    put(root / "testlist.mat", mat(testlist=np.array([[2]])))
    found = masks_of(root, split="train")
    assert [key[-5:] for key in found] == ["00001", "00003"]
    np.testing.assert_array_equal(found["pfcn: images_data_crop/00003"].matte, person(3)[1])
    put(root / "images_mask" / "00003_mask.mat", b"MATLAB 5.0 or not")
    with pytest.raises(InputError, match=r"pfcn: images_data_crop/00003: the matte can't be decoded"):
        masks_of(root, split="train")
    put(root / "trainlist.mat", b"")
    with pytest.raises(InputError, match=r"trainlist\.mat: can't be read as a MATLAB file"):
        sets.read(root, split="train")


# Supervisely Person


def bitmap(mask, origin, *, channels):
    """Supervisely's: base64 of zlib of a PNG that is as large as the area."""
    picture = np.dstack([mask * 0] * 3 + [mask]) if channels == 4 else mask
    packed = base64.b64encode(zlib.compress(png(picture))).decode()
    return {"data": packed, "origin": list(origin)}


def supervisely(root, things, *, ending=".png.json", name="p", folder="ds1"):
    image, _ = person(1)
    put(root / "meta.json", b"{}")
    put(root / folder / "img" / f"{name}.png", png(image))
    annotation = {"size": {"height": 96, "width": 72}, "objects": things}
    put(root / folder / "ann" / f"{name}{ending}", json.dumps(annotation).encode())
    return root


def polygon(name, exterior, *interior):
    points = {"exterior": exterior, "interior": list(interior)}
    return {"classTitle": name, "geometryType": "polygon", "points": points, "bitmap": None}


SQUARE, HOLE = [[10, 20], [49, 20], [49, 79], [10, 79]], [[20, 30], [29, 30], [29, 39], [20, 39]]


@pytest.mark.parametrize("ending", [".png.json", ".json"])
@pytest.mark.parametrize("channels", [4, 1])
def test_supervisely_bitmaps_and_polygons_with_holes(tmp_path, channels, ending):
    mask = person(1)[1][40:60, 5:35]
    painted = {"classTitle": "person_bmp", "bitmap": bitmap(mask, (5, 40), channels=channels)}
    root = supervisely(tmp_path / "sv", [polygon("person_poly", SQUARE, HOLE), painted], ending=ending)
    (sample,) = masks_of(root).values()
    wanted = np.zeros((96, 72), np.uint8)
    wanted[20:80, 10:50] = 255
    wanted[30:40, 20:30] = 0
    wanted[40:60, 5:35] |= mask
    np.testing.assert_array_equal(sample.matte, wanted)
    assert sample.weight is None


def test_supervisely_bitmaps_may_stand_over_the_edge(tmp_path):
    full = np.full((30, 30), 255, np.uint8)
    painted = [
        {"classTitle": "person_bmp", "bitmap": bitmap(full, (-10, -20), channels=4)},
        {"classTitle": "person_bmp", "bitmap": bitmap(full, (60, 90), channels=4)},
        *(
            {"classTitle": "person_bmp", "bitmap": bitmap(full, origin, channels=4)}
            for origin in ((75, 10), (10, 99), (-31, 10), (10, -31))
        ),
    ]
    (sample,) = masks_of(supervisely(tmp_path / "sv", painted)).values()
    wanted = np.zeros((96, 72), np.uint8)
    wanted[:10, :20] = wanted[90:, 60:] = 255
    np.testing.assert_array_equal(sample.matte, wanted)


def test_supervisely_neutral_areas_do_not_count(tmp_path):
    things = [
        polygon("person_poly", SQUARE),
        polygon("neutral", [[40, 0], [71, 0], [71, 95], [40, 95]]),
        polygon("chair", [[0, 0], [9, 0], [9, 9], [0, 9]]),
    ]
    (sample,) = masks_of(supervisely(tmp_path / "sv", things)).values()
    assert not sample.weight[:, 40:].any()
    assert (sample.weight[:, :40] == 255).all()
    assert (sample.matte[20:80, 10:50] == 255).all()
    assert not sample.matte[:10, :10].any()


def test_supervisely_keys_tell_its_parts_apart(tmp_path):
    root = supervisely(tmp_path / "sv", [polygon("person_poly", SQUARE)])
    supervisely(root, [], folder="ds2")
    assert list(masks_of(root)) == ["sv: ds1/img/p", "sv: ds2/img/p"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"size": 1}',
        b'{"objects": [{"classTitle": "person_bmp", "bitmap": {"data": "%%%", "origin": [0, 0]}}]}',
        b'{"objects": [{"classTitle": "person_bmp", "bitmap": {"data": "aGVsbG8=", "origin": [0, 0]}}]}',
        b'{"objects": [{"classTitle": "person_poly", "points": {"exterior": [], "interior": []}}]}',
        b'{"objects": [{"classTitle": "person_poly", "points": {"exterior": [[1, "a"]], "interior": []}}]}',
    ],
)
def test_damaged_annotations_are_named(tmp_path, content):
    root = supervisely(tmp_path / "sv", [])
    put(root / "ds1" / "ann" / "p.png.json", content)
    with pytest.raises(InputError, match="sv: ds1/img/p: the matte can't be decoded"):
        masks_of(root)


# P3M-10k, AISegment


def test_p3m_has_a_part_per_folder(tmp_path):
    root = tmp_path / "P3M-10k"
    for part, images in (
        ("train", "blurred_image"),
        ("validation/P3M-500-P", "blurred_image"),
        ("validation/P3M-500-NP", "original_image"),
    ):
        image, mask = person(len(part))
        put(root / part / images / "p_1.jpg", jpg(image))
        put(root / part / "mask" / "p_1.png", png(cv2.GaussianBlur(mask, (5, 5), 0)))
    for split, seed in (("train", 5), ("P3M-500-P", 20), ("P3M-500-NP", 21)):
        (sample,) = masks_of(root, split=split).values()
        np.testing.assert_array_equal(sample.matte, cv2.GaussianBlur(person(seed)[1], (5, 5), 0))
    with pytest.raises(UsageError, match="say P3M-10k:P3M-500-NP or P3M-10k:P3M-500-P or P3M-10k:train"):
        sets.read(root)
    assert len(sets.read(root / "train")) == 1  # one part alone


def test_aisegment_mattes_are_alpha_channels(tmp_path):
    root = tmp_path / "aisegment"
    image, mask = person(3)
    name = "1803151818-00000003"
    put(root / "clip_img" / "1803151818" / "clip_00000000" / f"{name}.jpg", jpg(image))
    cut_out = root / "matting" / "1803151818" / "matting_00000000" / f"{name}.png"
    put(cut_out, png(np.dstack([image, mask])))
    (sample,) = masks_of(root).values()
    np.testing.assert_array_equal(sample.matte, mask)
    put(cut_out, png(image))  # no alpha channel
    with pytest.raises(InputError, match="the matte can't be decoded"):
        masks_of(root)


# Folders in general


def test_unknown_layouts_are_refused(tmp_path):
    put(tmp_path / "odd" / "pictures" / "a.jpg", jpg(room(1)))
    with pytest.raises(InputError, match="laid out like no known data set"):
        sets.read(tmp_path / "odd")


def test_what_is_no_tar_is_refused_in_one_line(tmp_path):
    put(tmp_path / "bad.tar", bytes(range(256)) * 4)
    with pytest.raises(InputError, match=r"bad\.tar: can't be read as a tar") as caught:
        sets.read(tmp_path / "bad.tar")
    assert "\n" not in str(caught.value)


def test_backgrounds_may_be_a_folder_of_pictures(tmp_path):
    put(tmp_path / "backgrounds" / "rooms" / "a.jpg", jpg(room(1)))
    put(tmp_path / "backgrounds" / "b.png", png(room(2)))
    pairs = sets.read(tmp_path / "backgrounds")
    assert len(pairs) == 2
    assert not any(pair.decode().matte.any() for pair in pairs)


def test_run_mixes_folders_parts_and_tars(tmp_path):
    root = write_sets(tmp_path / "sets")
    plain_folder(root / "mine")
    eg1800(root / "eg1800")
    weights = {"mine": 0.5, "eg1800:train": 0.4, "portraits-train": 0.1}
    config = train.Config(data=str(root), out=str(tmp_path / "out"), sets=weights, validation="eg1800:test")
    samples, validation = train.open_data(config, range(3), distributed.World())
    assert len(validation) == 1
    drawn = [samples.names[np.random.default_rng(i).choice(3, p=samples.chances)] for i in range(2000)]
    for name, weight in weights.items():
        assert drawn.count(name) / 2000 == pytest.approx(weight, abs=0.04)
    assert len(samples.make(0).image) == config.batch


def test_unreadable_pictures_are_skipped_by_option_and_named_once(tmp_path, capsys):
    root = plain_folder(tmp_path / "mine")
    put(root / "images" / "p1.jpg", b"no picture")
    samples = data.Samples(
        {"mine": sets.read(root)},
        {"mine": 1},
        batch=4,
        shapes=augment.Shapes(64, 64, 9),
        span=range(9),
        seed=1,
        skip_broken=True,
    )
    assert all(len(samples.make(i).image) == 4 for i in range(9))
    assert capsys.readouterr().err == "skipped: mine: images/p1: the picture can't be decoded\n"
    samples.skip_broken = False
    with pytest.raises(InputError, match="images/p1: the picture can't be decoded"):
        list(samples)
    shutil.rmtree(root / "images")
    samples.skip_broken = True
    with pytest.raises(InputError, match="mine: 50 pictures in a row can't be read"):
        samples.make(0)


def test_pictures_are_read_from_disk_when_they_are_drawn(tmp_path):
    """Sets of tens of thousands need not fit into memory."""
    (first, *_) = sets.read(plain_folder(tmp_path / "mine"))
    assert first.image == tmp_path / "mine" / "images" / "p0.jpg"


# Clips


def write_video(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_clip_is_read_with_its_mattes(tmp_path):
    pictures = [person(i, 64, 80) for i in range(3)]
    video = write_video(tmp_path / "a.mkv", [image for image, _ in pictures])
    mattes = write_video(tmp_path / "m.mkv", [np.dstack([mask] * 3) for _, mask in pictures])
    pairs = sets.read_clip(video, mattes)
    assert [pair.key for pair in pairs] == ["a.mkv: 1", "a.mkv: 2", "a.mkv: 3"]
    for pair, (image, mask) in zip(pairs, pictures, strict=True):
        sample = pair.decode()
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.matte, mask)
    short = write_video(tmp_path / "s.mkv", [np.dstack([mask] * 3) for _, mask in pictures[:2]])
    with pytest.raises(InputError, match=r"s\.mkv: has 2 frames, .*a\.mkv has 3"):
        sets.read_clip(video, short)
    (tmp_path / "text.mkv").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mkv: can't be read as a video"):
        sets.read_clip(video, tmp_path / "text.mkv")


def test_dtssd_is_measured_within_clips_and_not_across(tmp_path):
    """Frames 1 and 2 of a, 1 and 2 of b: two changes, not three; the memory is lost in between."""
    files = {}
    for seed, key in enumerate(("a-1", "a-2", "b-1", "b-2")):
        image, mask = person(seed)
        files |= {f"{key}.jpg": jpg(image), f"{key}.png": png(mask)}
    pairs = sets.read(write_tar(tmp_path / "clips.tar", files))
    forgotten = []
    predict = evaluate.Predict(lambda rgb: np.zeros(rgb.shape[:2], np.float32), lambda: forgotten.append(1))
    scores, total = evaluate.score(predict, pairs, clips=True)
    assert ["dtssd" in s.numbers for s in scores] == [False, True, False, True]
    assert len(forgotten) == 2
    masks = [person(seed)[1] / 255 for seed in range(4)]
    wanted = [100 * np.sqrt(np.square(masks[i + 1] - masks[i]).mean()) for i in (0, 2)]
    assert evaluate.summary(scores, total)["dtssd"] == pytest.approx(np.mean(wanted))
    assert "dtssd" in evaluate.table(scores).splitlines()[0]


def test_clip_command(tmp_path, capsys):
    pictures = [person(1, 64, 80)] * 3
    video = write_video(tmp_path / "a.mkv", [image for image, _ in pictures])
    mattes = write_video(tmp_path / "m.mkv", [np.dstack([mask] * 3) for _, mask in pictures])
    words = ["--data", str(video), "--mattes", str(mattes), "--size", "96", "--product"]
    evaluate.main([*words, "--json", str(tmp_path / "r.json"), "--table", str(tmp_path / "t.txt")])
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["clips"] is True
    assert facts["dtssd"] == pytest.approx(0, abs=2)  # three times the same frame, and a memory
    assert len((tmp_path / "t.txt").read_text().splitlines()) == 4
    assert "dtssd" in capsys.readouterr().out


def test_what_the_truth_does_not_know_is_no_error(tmp_path):
    root = supervisely(
        tmp_path / "sv",
        [polygon("person_poly", SQUARE), polygon("neutral", [[50, 0], [71, 0], [71, 95], [50, 95]])],
    )
    truth = masks_of(root)["sv: ds1/img/p"].matte / np.float32(255)
    wrong = truth.copy()
    wrong[:, 50:] = 1
    scores, total = evaluate.score(evaluate.Predict(lambda rgb: wrong), sets.read(root))
    assert total == 100
    assert scores[0].numbers["sad"] == 0


def test_evaluate_skips_broken_pictures_by_option(tmp_path, capsys):
    root = plain_folder(tmp_path / "mine")
    put(root / "images" / "p1.jpg", b"no picture")
    predict = evaluate.Predict(lambda rgb: np.zeros(rgb.shape[:2], np.float32))
    with pytest.raises(InputError, match="images/p1"):
        evaluate.score(predict, sets.read(root))
    scores, _ = evaluate.score(predict, sets.read(root), skip_broken=True)
    assert len(scores) == 2
    assert "skipped: mine: images/p1" in capsys.readouterr().err

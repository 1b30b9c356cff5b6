"""Training's parts: targets, losses, metrics, sets, samples."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from training_sets import TRAINED, jpg, person, png, room, write_tar

from banet_stream.errors import InputError, UsageError
from banet_stream.network import MEAN, STD, BANet, BANetOutput
from training import augment, data, losses, metrics, sets, targets, tars
from training.baselines.common import PlainOutput
from training.pairs import Pair


def make_samples(root, *, seed=1, batch=3, span=range(8), weights=None, **more):
    shapes = augment.Shapes(64, 96, 8)
    weights = weights or TRAINED
    found = {name: sets.read(root / f"{name}.tar") for name in (*weights, sets.BACKGROUNDS)}
    return data.Samples(found, weights, batch=batch, shapes=shapes, span=span, seed=seed, **more)


# Boundary targets


@pytest.mark.parametrize(
    ("columns", "kernel"),
    [
        (64, 6),  # 64 of 128 columns: K = 0.5 * 50 * 128 / 512 = 6.25
        (96, 9),  # 0.75 * 12.5 = 9.375
        (16, 3),  # 0.125 * 12.5 = 1.56, below what a dilation can do
    ],
)
def test_boundary_is_as_wide_as_equation_1_says(columns, kernel):
    matte = np.zeros((128, 128), np.uint8)
    matte[:, :columns] = 255
    band = np.flatnonzero(targets.boundary(matte)[64])
    assert len(band) == kernel
    assert abs(band.mean() - (columns - 0.5)) <= 1  # across the edge, not beside it


def test_boundary_of_the_papers_size_takes_its_width_as_it_is():
    matte = np.zeros((512, 512), np.uint8)
    matte[:, :256] = 255
    assert np.count_nonzero(targets.boundary(matte)[256]) == 25  # 0.5 * 50


def test_boundary_is_hollow_inside_and_outside():
    matte = np.zeros((128, 128), np.uint8)
    matte[30:100, 30:100] = 255
    band = targets.boundary(matte)
    assert set(np.unique(band)) == {0, 255}
    assert band[65, 30] == band[65, 99] == band[30, 65] == 255
    assert band[65, 65] == band[5, 5] == band[125, 65] == 0


@pytest.mark.parametrize("value", [0, 255])
def test_boundary_of_nobody_and_of_everybody_is_empty(value):
    assert not targets.boundary(np.full((64, 96), value, np.uint8)).any()


# Losses


def prepared(matte, boundary, weight=None, picture=None):
    weight = torch.ones_like(matte) if weight is None else weight
    picture = torch.zeros(len(matte), 3, *matte.shape[2:]) if picture is None else picture
    return data.Prepared(picture, picture, matte, boundary, weight)


def test_losses_against_hand_worked_numbers():
    logits = torch.tensor([[0.0, 2.0], [-2.0, 0.0]]).repeat(1, 1, 2, 2)
    matte = torch.tensor([[1.0, 1.0], [0.0, 0.5]]).repeat(1, 1, 2, 2)
    attention = torch.tensor([[[[1.0]]]])
    boundary = torch.zeros(1, 1, 4, 4)
    boundary[..., 0, :] = 1  # a quarter of the cell
    output = BANetOutput(logits, torch.zeros(1), attention)
    loss, terms = losses.total(output, prepared(matte, boundary))
    # -log(1/2), -log(s(2)), -log(1 - s(-2)), -(log(1/2) + log(1/2)) / 2; log(1 + exp(-2)) = 0.126928
    segmentation = (math.log(2) + 0.126928 + 0.126928 + math.log(2)) / 4
    # s(1) = 0.731059: -0.25 log 0.731059 - 0.75 log 0.268941
    attended = 0.25 * 0.313262 + 0.75 * 1.313262
    assert terms["segmentation"].item() == pytest.approx(segmentation, abs=1e-5)
    assert terms["boundary"].item() == pytest.approx(attended, abs=1e-5)
    assert loss.item() == pytest.approx(0.6 * segmentation + 0.3 * attended, abs=1e-5)


def test_refine_loss_against_hand_worked_numbers():
    """A step of a third of the picture's range beside one of the matte's whole range."""
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., :, 4:] = 1 / 3
    picture[..., 7] = 1.0  # so that eq. (12) keeps the first step at a third
    logits = torch.full((1, 1, 8, 8), -50.0)
    logits[..., 4:] = 50
    band = torch.zeros(1, 1, 8, 8)
    band[..., 2:6, 3] = 1
    matte = torch.zeros(1, 1, 8, 8)
    output = BANetOutput(logits, torch.zeros(1), torch.zeros(1, 1, 2, 2))
    loss, terms = losses.total(output, prepared(matte, band, picture=picture), refine_weight=0.1)
    # Sobel across a vertical step: 4 times its height. m_pred = 4, m_img = 4/3, both point right: L_cos = 0,
    # L_mag = max(1.5 * 4/3 - 4, 0) = 0.
    assert terms["refine"].item() == pytest.approx(0, abs=1e-5)
    faint = BANetOutput(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, 1, 2, 2))
    without, _ = losses.total(faint, prepared(matte, band, picture=picture))
    loss, terms = losses.total(faint, prepared(matte, band, picture=picture), refine_weight=0.1)
    # A matte without any edge: L_cos = 0, L_mag = 1.5 * 4/3 = 2, half of it by gamma_2.
    assert terms["refine"].item() == pytest.approx(1.0, abs=1e-5)
    assert (loss - without).item() == pytest.approx(0.1, abs=1e-6)
    crossed = torch.full((1, 1, 8, 8), -50.0)
    crossed[..., 4:, :] = 50
    output = BANetOutput(crossed, torch.zeros(1), torch.zeros(1, 1, 2, 2))
    _, terms = losses.total(output, prepared(matte, band, picture=picture), refine_weight=0.1)
    # Across the picture's edge: in rows 3 and 4 m_pred = 4 and nothing agrees, L_cos = 4, L_mag = 0;
    # in rows 2 and 5 there is no edge, L_mag = 2. Half of each, over four pixels.
    assert terms["refine"].item() == pytest.approx((2 + 2 + 1 + 1) / 4, abs=1e-5)


def test_overlap_against_hand_worked_numbers():
    sure = torch.tensor([[50.0, 50.0], [-50.0, -50.0]])[None, None]
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
    everywhere = torch.ones(1, 1, 2, 2)
    # Person and background: one pixel in common, three in either.
    assert losses.jaccard(sure, target, everywhere).item() == pytest.approx(2 / 3)
    found = (sure > 0).float()
    assert losses.jaccard(sure, found, everywhere).item() == pytest.approx(0)
    # The left column alone: half of the person is found, and no background is there to be judged.
    left = torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None]
    assert losses.jaccard(sure, target, left).item() == pytest.approx(1 / 2)
    # Nobody there, a pixel found: the background's overlap alone.
    nobody = torch.zeros(1, 1, 2, 2)
    assert losses.jaccard(sure, nobody, everywhere).item() == pytest.approx(1 / 2)
    assert losses.jaccard(sure, nobody, nobody).item() == 0
    # A mean over pictures.
    pair = (torch.cat([a, b]) for a, b in ((sure, sure), (target, found), (everywhere, everywhere)))
    assert losses.jaccard(*pair).item() == pytest.approx(1 / 3)


def test_overlap_is_best_where_the_matte_is_the_target_soft_or_hard():
    target = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    exact = losses.jaccard(target.logit(), target, torch.ones_like(target))
    assert exact.item() == pytest.approx(0, abs=1e-6)
    logits = torch.zeros_like(target, requires_grad=True)
    losses.jaccard(logits, target, torch.ones_like(target)).backward()
    assert ((logits.grad < 0) == (target > 0.5)).all()


def test_overlap_is_added_by_its_weight():
    matte = torch.ones(1, 1, 8, 8)
    output = PlainOutput(torch.zeros(1, 1, 8, 8))
    without, _ = losses.total(output, prepared(matte, matte))
    loss, terms = losses.total(output, prepared(matte, matte), overlap_weight=0.3)
    assert terms["overlap"].item() == pytest.approx(0.5)
    assert (loss - without).item() == pytest.approx(0.15, abs=1e-6)


def test_what_does_not_count_costs_nothing():
    logits = torch.zeros(1, 1, 8, 8)
    logits[..., :4] = 9.0
    matte, boundary, weight = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    weight[..., :4] = 0
    attention = torch.tensor([[9.0, 0.0], [9.0, 0.0]])[None, None]
    output = BANetOutput(logits, torch.zeros(1), attention)
    loss, _ = losses.total(output, prepared(matte, boundary, weight))
    assert loss.item() == pytest.approx(0.9 * math.log(2), abs=1e-6)
    nothing, _ = losses.total(output, prepared(matte, boundary, torch.zeros(1, 1, 8, 8)), refine_weight=0.1)
    assert nothing.item() == 0


def test_networks_without_attention_are_not_asked_for_it():
    matte = torch.zeros(1, 1, 8, 8)
    loss, terms = losses.total(PlainOutput(torch.zeros(1, 1, 8, 8)), prepared(matte, matte))
    assert set(terms) == {"segmentation"}
    assert loss.item() == pytest.approx(0.6 * math.log(2), abs=1e-6)


def test_loss_reaches_every_parameter(root):
    batch = data.prepare(make_samples(root).make(0), "cpu")
    model = BANet(64)
    loss, _ = losses.total(model(batch.image), batch, refine_weight=0.1)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Metrics


def test_mean_iou_hand_worked():
    total = metrics.MeanIoU()
    matte = np.array([[255, 255, 0, 0]], np.uint8)
    # both masks hold 2 pixels of 4, one of them in common: IoU 1/3, and 1/3 for the rest
    assert total.add(np.array([[0.9, 0.4, 0.5, 0.0]], np.float32), matte) == pytest.approx(100 / 3)
    assert total.add(np.array([[1, 1, 0, 0]], np.float32), matte) == 100
    # both pictures together: 3 in common of 5, for either class
    assert total.value == pytest.approx(60)


def test_mean_iou_leaves_out_a_class_that_is_nowhere():
    empty = np.zeros((3, 3), np.uint8)
    assert metrics.MeanIoU().add(np.zeros((3, 3), np.float32), empty) == 100
    assert metrics.MeanIoU().add(np.ones((3, 3), np.float32), empty) == 0


def random_pair(seed, shape=(40, 60)):
    rng = np.random.default_rng(seed)
    alpha = cv2.GaussianBlur(rng.random(shape, np.float32), (0, 0), 4)
    alpha = (alpha - alpha.min()) / (alpha.max() - alpha.min())
    noise = rng.normal(0, 0.1, shape).astype(np.float32)
    return alpha, np.round(np.clip(alpha + cv2.GaussianBlur(noise, (0, 0), 1), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_against_sets_of_pixels(seed):
    """The formulas once more, over Python sets of coordinates instead of arrays."""
    alpha, matte = random_pair(seed)
    every = set(np.ndindex(matte.shape))
    truth = {p for p in every if matte[p] > 127}
    found = {p for p in every if alpha[p] >= 0.5}
    ious = [len(a & b) / len(a | b) for a, b in ((truth, found), (every - truth, every - found))]
    assert metrics.MeanIoU().add(alpha, matte) == pytest.approx(50 * sum(ious))

    width = round(0.02 * math.hypot(*matte.shape))  # 1
    steps = [(y, x) for y in range(-width, width + 1) for x in range(-width, width + 1)]

    def band(mask):
        return {(r, c) for r, c in mask if any((r + y, c + x) not in mask for y, x in steps)}

    a, b = band(truth), band(found)
    assert metrics.boundary_iou(alpha, matte) == pytest.approx(len(a & b) / len(a | b))
    errors = [float(alpha[p]) - int(matte[p]) / 255 for p in every]
    assert metrics.mad(alpha, matte) == pytest.approx(math.fsum(map(abs, errors)) / len(errors))
    assert metrics.mse(alpha, matte) == pytest.approx(math.fsum(e * e for e in errors) / len(errors))


def test_boundary_iou_hand_worked():
    # Diagonal 100, so the band is 2 wide. Truth 20 x 20: 400 - 16^2 = 144 pixels of band.
    matte = np.zeros((60, 80), np.uint8)
    matte[20:40, 20:40] = 255
    assert metrics.boundary_iou(matte / np.float32(255), matte) == 1
    grown = np.zeros((60, 80), np.float32)
    grown[19:41, 19:41] = 1  # 22^2 - 18^2 = 160 of band; common to both: the ring 20^2 - 18^2 = 76
    assert metrics.boundary_iou(grown, matte) == pytest.approx(76 / (144 + 160 - 76))
    nobody = np.zeros((60, 80), np.float32)
    assert metrics.boundary_iou(nobody, matte) == 0
    assert metrics.boundary_iou(nobody, np.zeros((60, 80), np.uint8)) == 1


# Sets


def test_tar_is_read_in_order_of_keys(tmp_path):
    image, mask = person(1)
    files = {"b.jpg": jpg(image), "a.png": png(mask), "./a.JPEG": jpg(image), "b.png": png(mask)}
    pairs = sets.read_tar(write_tar(tmp_path / "set.tar", files | {"readme.txt": b"hello"}))
    assert [p.key for p in pairs] == ["set.tar: a", "set.tar: b"]
    rgb, matte, _ = pairs[0].decode()
    assert rgb.shape == (96, 72, 3)
    assert rgb.dtype == matte.dtype == np.uint8
    np.testing.assert_array_equal(matte, mask)
    assert rgb[80, 36, 0] > 200 > rgb[80, 36, 2]  # red first


def test_pictures_of_a_tar_keep_to_their_folders(tmp_path):
    (image, mask), (other, others) = person(1), person(2)
    files = {"a/1.jpg": jpg(image), "a/1.png": png(mask), "b/1.png": png(others), "b/1.jpg": jpg(other)}
    pairs = sets.read_tar(write_tar(tmp_path / "set.tar", files))
    assert [p.key for p in pairs] == ["set.tar: a/1", "set.tar: b/1"]
    for pair, wanted in zip(pairs, (mask, others), strict=True):
        np.testing.assert_array_equal(pair.decode().matte, wanted)


def test_tar_with_two_files_of_one_name_is_refused(tmp_path):
    image, mask = person(1)
    path = write_tar(tmp_path / "set.tar", {"a.jpg": jpg(image), "a.png": png(mask), "a.JPG": jpg(image)})
    with pytest.raises(InputError, match=r"set\.tar: holds a\.JPG twice"):
        sets.read_tar(path)


def test_pictures_that_a_tar_would_mix_up_are_refused(tmp_path):
    image, mask = person(1)
    pairs = [Pair(f"set: {key}", jpg(image), png(mask)) for key in ("my a", "your a", "b/a", "b-a")]
    files = (file for pair in pairs[:3] for file in tars.files_of(pair, mask))
    tars.write(tmp_path / "made.tar", files)
    assert len(sets.read_tar(tmp_path / "made.tar")) == 3
    files = (file for pair in pairs for file in tars.files_of(pair, mask))
    with pytest.raises(InputError, match=r"two pictures of the set would be b-a\.jpg"):
        tars.write(tmp_path / "other.tar", files)
    assert [path.name for path in tmp_path.iterdir()] == ["made.tar"]


def test_missing_matte_is_refused_and_named(tmp_path):
    image, mask = person(1)
    path = write_tar(
        tmp_path / "set.tar", {"a.jpg": jpg(image), "a.png": png(mask), "lonely.jpg": jpg(image)}
    )
    with pytest.raises(InputError, match=r"set\.tar: lonely\.jpg has no matte"):
        sets.read_tar(path)


def test_backgrounds_need_no_mattes_and_must_have_none(tmp_path):
    path = write_tar(tmp_path / "rooms.tar", {"a.jpg": jpg(room(1))})
    (pair,) = sets.read_tar(path, mattes=False)
    assert not pair.decode()[1].any()
    path = write_tar(tmp_path / "rooms.tar", {"a.jpg": jpg(room(1)), "a.png": png(person(1)[1])})
    with pytest.raises(InputError, match=r"a\.jpg has a matte"):
        sets.read_tar(path, mattes=False)


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / "text.tar").write_text("no tar at all")
    for path, message in (
        (tmp_path / "text.tar", r"text\.tar: can't be read as a tar"),
        (tmp_path / "none.tar", r"none\.tar: can't be read as a tar"),
        (write_tar(tmp_path / "empty.tar", {"readme.txt": b"hello"}), r"holds no \.jpg"),
    ):
        with pytest.raises(InputError, match=message):
            sets.read_tar(path)


IMAGE, MASK = person(1)


@pytest.mark.parametrize(
    ("image", "matte", "message"),
    [
        (jpg(IMAGE)[:300], png(MASK), r"set\.tar: bad: the picture can't be decoded"),
        (jpg(IMAGE)[:-20], png(MASK), r"set\.tar: bad: the picture can't be decoded"),
        (b"", png(MASK), r"set\.tar: bad: the picture can't be decoded"),
        (jpg(IMAGE), b"text", r"set\.tar: bad: the matte can't be decoded"),
        (jpg(IMAGE), png(MASK[:50]), r"set\.tar: bad: the matte is \[50, 72\], the picture \[96, 72\]"),
    ],
)
def test_damaged_picture_is_named(tmp_path, image, matte, message):
    (pair,) = sets.read_tar(write_tar(tmp_path / "set.tar", {"bad.jpg": image, "bad.png": matte}))
    with pytest.raises(InputError, match=message):
        pair.decode()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the loader's way on Linux
def test_damaged_picture_is_named_from_a_worker_too(root, workers):
    samples = make_samples(root, weights={"portraits-train": 1})
    samples.sets["portraits-train"] = [Pair("set.tar: bad", b"x", png(MASK))]
    with pytest.raises(InputError) as caught:
        list(data.batches(samples, workers=workers))
    assert str(caught.value) == "set.tar: bad: the picture can't be decoded"


def test_missing_sets_are_all_named(root):
    with pytest.raises(InputError, match=r"--data .*there is no .*one\.tar, .*two\.tar"):
        sets.locate(root, ("one", "portraits-train", "two"))
    with pytest.raises(UsageError, match="--sets"):
        make_samples(root, weights={"portraits-train": 0})


# Samples


def test_batches_are_multiples_of_32_in_their_ranges(root):
    for batch in data.batches(make_samples(root), workers=0):
        assert all(tensor.dtype == torch.uint8 for tensor in batch)
        image, picture, matte, boundary, weight = data.prepare(batch, "cpu")
        n, _, height, width = image.shape
        assert (n, height % 32, width % 32) == (3, 0, 0)
        assert matte.shape == boundary.shape == weight.shape == (3, 1, height, width)
        assert weight.min() == 1  # no set here leaves anything open
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        torch.testing.assert_close(picture, image * std + mean)
        assert image.dtype == matte.dtype == torch.float32
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert matte.min() >= 0
        assert matte.max() <= 1
        assert set(boundary.unique().tolist()) <= {0.0, 1.0}


def test_crops_grow_and_keep_their_area():
    shapes = augment.Shapes(192, 320, 900)
    for iteration, side in ((0, 192), (500, 192), (630, 256), (720, 320), (899, 320)):
        for draw in range(40):
            height, width = shapes(np.random.default_rng(draw), iteration)
            assert (height % 32, width % 32) == (0, 0)
            assert 0.75 < (height * width) ** 0.5 / side < 1.25


def test_sample_depends_only_on_seed_iteration_and_index(root):
    late = make_samples(root, span=range(5, 8)).make(6)
    whole = list(data.batches(make_samples(root), workers=0))
    for a, b in zip(whole[6], late, strict=True):
        assert torch.equal(a, b)
    smaller = make_samples(root, batch=1).make(6)
    assert torch.equal(smaller[0], late[0][:1])
    assert not torch.equal(make_samples(root, seed=2, batch=1).make(6)[1], smaller[1])


def test_processes_share_out_what_one_would_have_had(root):
    whole = make_samples(root, batch=5).make(6)
    shares = [make_samples(root, batch=5, share=(rank, 2)).make(6) for rank in (0, 1)]
    for tensor, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(tensor[0::2], first)
        assert torch.equal(tensor[1::2], second)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_change_nothing(root):
    alone = list(data.batches(make_samples(root), workers=0))
    shared = list(data.batches(make_samples(root), workers=2))
    assert len(alone) == len(shared) == 8
    for a, b in zip(alone, shared, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_crop_and_samples_never_share_their_random_numbers(root, monkeypatch):
    """numpy pads seeds with zeros: it takes (1, 2) and (1, 2, 0) for the same."""
    make, first = np.random.default_rng, []

    def recording(seed):
        first.append(make(seed).random())
        return make(seed)

    monkeypatch.setattr(np.random, "default_rng", recording)
    list(data.batches(make_samples(root), workers=0))
    assert len(set(first)) == len(first) == 8 * (1 + 3)

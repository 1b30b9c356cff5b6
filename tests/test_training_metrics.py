"""The matting metrics against hand-worked values, and against plain loops over pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from training import metrics


def random_pair(seed, shape=(24, 31)):
    """Two soft mattes that resemble each other: [H, W] float32 in 0..1 and [H, W] uint8."""
    rng = np.random.default_rng(seed)
    base = cv2.GaussianBlur(rng.random(shape, np.float32), (0, 0), 3)
    alpha = np.clip((base - np.quantile(base, 0.3)) / np.ptp(base) * 3, 0, 1)
    noise = cv2.GaussianBlur(rng.normal(0, 0.5, shape).astype(np.float32), (0, 0), 1)
    return alpha, np.round(np.clip(alpha + noise, 0, 1) * 255).astype(np.uint8)


def at(picture, y, x):
    """A pixel; beyond the edge the edge's."""
    rows, columns = picture.shape
    return float(picture[min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)])


# SAD


def test_sad_counts_thousands_of_pixels():
    matte = np.zeros((100, 100), np.uint8)
    alpha = np.full((100, 100), 0.25, np.float32)
    assert metrics.sad(alpha, matte) == pytest.approx(2.5)


# Grad


def plain_gradient(picture):
    """Derivatives of a Gaussian of sigma 1.4 as sums over a 9 x 9 window, the filters of unit length."""
    sigma, reach = 1.4, 4
    window = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]

    def taps(along):
        values = {}
        for y, x in window:
            d = x if along else y
            values[y, x] = d * math.exp(-(x * x + y * y) / (2 * sigma**2))
        length = math.sqrt(sum(v * v for v in values.values()))
        return {place: v / length for place, v in values.items()}

    across, down = taps(True), taps(False)
    found = np.zeros(picture.shape)
    for y, x in np.ndindex(picture.shape):
        sums = [sum(v * at(picture, y + i, x + j) for (i, j), v in f.items()) for f in (across, down)]
        found[y, x] = math.hypot(*sums)
    return found


def test_gradient_error_against_plain_sums():
    alpha, matte = random_pair(1, (16, 19))
    difference = plain_gradient(alpha.astype(np.float64)) - plain_gradient(matte / 255)
    wanted = sum(float(d) ** 2 for d in difference.ravel()) / 1000
    assert wanted > 0.001
    assert metrics.gradient_error(alpha, matte) == pytest.approx(wanted, rel=1e-9)


def test_gradient_error_hand_worked():
    """Flat mattes have no gradients, however wrong they are."""
    flat, full = np.full((9, 9), 0.3, np.float32), np.full((9, 9), 255, np.uint8)
    assert metrics.gradient_error(flat, full) == pytest.approx(0, abs=1e-20)
    # A step across all rows: the sum of the filter's taps on one side, squared, in all columns it reaches.
    matte = np.zeros((40, 40), np.uint8)
    matte[:, 20:] = 255
    x = np.arange(-4, 5)
    slope, smooth = x * np.exp(-(x**2) / 3.92), np.exp(-(x**2) / 3.92)
    slope, smooth = slope / np.sqrt((slope**2).sum()), smooth / np.sqrt((smooth**2).sum())
    wanted = 40 * sum((slope[-i:].sum() * smooth.sum()) ** 2 for i in range(1, 9)) / 1000
    assert metrics.gradient_error(np.zeros((40, 40), np.float32), matte) == pytest.approx(wanted)


# Conn


def components(pixels):
    """Areas that hang together over sides, found by walking."""
    left, found = set(pixels), []
    while left:
        area, edge = set(), [min(left)]
        while edge:
            y, x = edge.pop()
            if (y, x) in left:
                left.remove((y, x))
                area.add((y, x))
                edge += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        found.append(area)
    return found


def plain_connectivity(alpha, matte):
    truth = matte / 255
    total = 0.0
    level = dict.fromkeys(np.ndindex(truth.shape), 1.0)
    for step in range(10, 0, -1):  # from above: the lowest level at which a pixel falls out wins
        pixels = [p for p in level if alpha[p] >= step / 10 and truth[p] >= step / 10]
        areas = components(pixels)
        largest = max(areas, key=len) if areas else set()
        assert sum(len(a) == len(largest) for a in areas) < 2  # which of equals is taken is not said
        for p in level:
            if p not in largest:
                level[p] = (step - 1) / 10
    for p, base in level.items():
        above = [v - base for v in (float(alpha[p]), truth[p])]
        degrees = [1 - (d if d >= 0.15 else 0) for d in above]
        total += abs(degrees[0] - degrees[1])
    return total / 1000


@pytest.mark.parametrize("seed", [1, 4, 6])
def test_connectivity_error_against_walked_areas(seed):
    alpha, matte = random_pair(seed)
    wanted = plain_connectivity(alpha.astype(np.float64), matte)
    assert wanted > 0.001
    assert metrics.connectivity_error(alpha, matte) == pytest.approx(wanted, rel=1e-9)


def test_connectivity_error_hand_worked():
    # A person of 10 x 10; the matte has them, and an island of 2 x 2 elsewhere, wholly person.
    matte = np.zeros((30, 30), np.uint8)
    matte[5:15, 5:15] = 255
    alpha = matte / np.float32(255)
    assert metrics.connectivity_error(alpha, matte) == 0
    alpha[20:22, 20:22] = 1  # connected at level 0 only: its degree is 0, the truth's 1
    assert metrics.connectivity_error(alpha, matte) == pytest.approx(4 / 1000)
    alpha[20:22, 20:22] = 0.1  # below the tolerance of 0.15
    assert metrics.connectivity_error(alpha, matte) == 0


# The boundary band


def test_mad_in_band_sees_the_band_only():
    matte = np.zeros((60, 80), np.uint8)  # diagonal 100: two pixels to either side
    matte[:, 40:] = 255
    alpha = matte / np.float32(255)
    alpha[:, :20] = 1  # far away
    assert metrics.mad_in_band(alpha, matte) == 0
    alpha[:, 38:42] = 0.5
    assert metrics.mad_in_band(alpha, matte) == pytest.approx(0.5)
    assert metrics.mad_in_band(alpha, np.zeros((60, 80), np.uint8)) == 0  # no boundary


def test_mad_in_band_counts_soft_truth_wherever_it_is():
    matte = np.zeros((60, 80), np.uint8)
    matte[10, 10] = 51  # below one half: no mask there, but hair
    assert metrics.mad_in_band(np.zeros((60, 80), np.float32), matte) == pytest.approx(0.2)


# dtSSD


def test_dtssd_hand_worked():
    before, after = np.zeros((2, 2), np.uint8), np.array([[255, 0], [0, 0]], np.uint8)
    still = np.zeros((2, 2), np.float32)
    assert metrics.dtssd(after / np.float32(255), after, still, before) == 0
    # one of four pixels should have changed by 1 and did not: 100 * sqrt(1 / 4)
    assert metrics.dtssd(still, after, still, before) == pytest.approx(50)
    # wrong in the same way all the time is steady
    wrong = np.full((2, 2), 0.7, np.float32)
    assert metrics.dtssd(wrong, before, wrong, before) == 0


@pytest.mark.parametrize("seed", range(3))
def test_dtssd_against_plain_sums(seed):
    (a1, m1), (a0, m0) = random_pair(seed), random_pair(seed + 10)
    changes = [(float(a1[p]) - float(a0[p])) - (int(m1[p]) - int(m0[p])) / 255 for p in np.ndindex(m1.shape)]
    wanted = 100 * math.sqrt(math.fsum(c * c for c in changes) / len(changes))
    assert metrics.dtssd(a1, m1, a0, m0) == pytest.approx(wanted)

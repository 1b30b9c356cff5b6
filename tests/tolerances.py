"""How far a kernel may be from its reference, by what is compared, and why. Nowhere else in the tests."""

from __future__ import annotations

import torch
from torch import Tensor

# Reference and kernel sum in another order, and x86 and CUDA fuse multiply and add: a few units in the
# last place of values near 1, more where a division by a small variance magnifies them.
FLOATS = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    # Both round to their own precision, the reference also in between.
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}

# Guided upsampling subtracts squares of means in float32 and divides by a variance of about 1e-4: what the
# reference itself loses. 1e-4 is a fortieth of an 8-bit step.
ALPHA_SCALE = 5

# The guided filter sums in double on the CPU. On CUDA it sums floats, and divides by variances of 2e-4: this
# is half an 8-bit step.
FILTER_SCALE = {"cpu": 1, "cuda": 100}

# A sample whose exact value lies half-way between two codes may round either way.
SAMPLE_STEP = 1
SAMPLES_OFF = 1e-3  # the share of samples that may

# Frames whose mattes two devices made: cuDNN multiplies in TF32, which moves alpha by a thousandth or two,
# and guided upsampling magnifies that.
NETWORK_STEPS = 3
# Straight colours of a subject that covers less are quotients of two small numbers.
COVERED = 0.5

# Against the float64 reference of the colour conversion, in 1/255: the requirement.
COLOUR_STEP = 1 / 255


def assert_floats(actual: Tensor, expected: Tensor, *, scale: float = 1.0) -> None:
    """``scale``: the magnitude of the values where it is not about 1."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    limit = FLOATS[actual.dtype] * scale
    torch.testing.assert_close(actual, expected, atol=limit, rtol=FLOATS[actual.dtype])


def assert_gradients(actual: Tensor, expected: Tensor) -> None:
    """Relative error of the whole tensor: eq. (11) divides by magnitudes that may be small, so single
    gradients carry the rounding of the image many times enlarged."""
    assert actual.dtype == expected.dtype
    error = (actual.double() - expected.double()).norm()
    assert error <= 50 * FLOATS[actual.dtype] * expected.double().norm() + FLOATS[actual.dtype], (
        f"{error:.3g}"
    )


def assert_samples(actual: list[Tensor], expected: list[Tensor]) -> None:
    for got, wanted in zip(actual, expected, strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        difference = (got.int() - wanted.int()).abs()
        assert difference.max() <= SAMPLE_STEP, f"off by {difference.max()}"
        # A few samples of a tiny plane may be at a tie.
        assert (difference > 0).sum() <= 3 + SAMPLES_OFF * difference.numel()

"""The CUDA kernels' own code, and the launches CuPy makes, run on the CPU.

g++ compiles the .cu files, and threads and blocks become a loop. That says nothing about speed, races or a
GPU's memory; it does say that every index, argument and formula of the kernels is right.
test_kernels_launched.py does the same for the launchers at the end of the .cu files.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from operator_inputs import SIZES, SUBSAMPLINGS, frame, matte, padded, seen
from tolerances import ALPHA_SCALE, FILTER_SCALE, assert_floats, assert_samples
from torch import Tensor

from banet_stream import cupy_kernels, reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

# common.h comes first: it must not see the macros that NVRTC would set. The rest of CUDA the kernels use.
BEFORE = """
#include "common.h"
struct Index { int64_t x, y, z; };
static Index blockIdx, blockDim{1, 1, 1}, threadIdx;
#define __global__
#define __device__
#define __forceinline__ inline
#define __CUDACC_RTC__
"""
AFTER = 'extern "C" void set_block(int64_t x) { blockIdx.x = x; }\n'


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    folder, loaded = tmp_path_factory.mktemp("emulated"), {}
    for name in (
        "boundary_attention",
        "composite",
        "frame_to_input",
        "guided_filter",
        "masked_blur",
        "steady_alpha",
        "upsample_alpha",
    ):
        source = folder / f"{name}.cpp"
        source.write_text(BEFORE + cupy_kernels.source_of(name) + AFTER)
        target = folder / f"{name}.so"
        command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", f"-I{cupy_kernels.csrc()}", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True, timeout=120)
        loaded[name] = ctypes.CDLL(str(target))
    return loaded


@pytest.fixture(autouse=True)
def on_the_cpu(libraries: dict[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kinds: dict[Any, Any] = {
        np.uint64: ctypes.c_void_p,
        np.int32: ctypes.c_int32,
        np.int64: ctypes.c_int64,
        np.bool_: ctypes.c_bool,
        np.float32: ctypes.c_float,
        np.float64: ctypes.c_double,
    }

    def launch(name: str, kernel: str, items: int, like: Tensor, *arguments: Any) -> None:
        values = cupy_kernels.typed(name, kernel, arguments)
        converted = [kinds[type(v)](v.item()) for v in values]
        function, place = getattr(libraries[name], kernel), libraries[name].set_block
        place.argtypes = [ctypes.c_int64]
        for item in range(items + 3):  # some beyond the end, as the last block has
            place(item)
            function(*converted)

    monkeypatch.setattr(cupy_kernels, "launch", launch)
    torch.use_deterministic_algorithms(True)  # and memory that nothing was written to holds NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("size", [(1, 1), (1, 23), (23, 1), (64, 96)])
def test_guided_filter(size: tuple[int, int]) -> None:
    alpha, image = matte(size), seen(size)
    for given in (image, image.mT.contiguous().mT):
        actual = cupy_kernels.guided_filter(alpha, given)
        assert_floats(actual, reference.guided_filter(alpha, image), scale=FILTER_SCALE["cuda"])


def test_steady_alpha() -> None:
    now, before = matte((21, 34)), matte((21, 34)).roll(5, 1)
    options = {"certain": 0.25, "steady": 0.35}
    actual = cupy_kernels.steady_alpha(now, before, **options)
    assert_floats(actual, reference.steady_alpha(now, before, **options))


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize(("size", "matte_size"), [((35, 61), (12, 20)), *SIZES[3:8]])
def test_composite(
    size: tuple[int, int], matte_size: tuple[int, int], subsampling: tuple[int, int], depth: int
) -> None:
    front = [padded(p) for p in frame(size, depth=depth, subsampling=subsampling)]
    back, alpha = frame(size, depth=depth, subsampling=subsampling, seed=1), matte(matte_size)
    for upsampling, decontaminate, wrap in (
        ("guided", True, 0.0),
        ("bilinear", False, 0.0),
        ("guided", True, 0.7),
    ):
        options = {"depth": depth, "subsampling": subsampling}
        options |= {"upsampling": upsampling, "decontaminate": decontaminate, "light_wrap": wrap}
        actual = cupy_kernels.composite(front, alpha, back, **options)
        assert_samples(actual, reference.composite(front, alpha, back, **options))


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(("size", "small"), [((35, 61), (12, 20)), *SIZES[3:8]])
def test_the_other_frame_operators(size: tuple[int, int], small: tuple[int, int], depth: int) -> None:
    planes, alpha = frame(size, depth=depth), matte(small)
    for upsampling in ("guided", "bilinear"):
        call = {"depth": depth, "upsampling": upsampling}
        assert_floats(
            cupy_kernels.upsample_alpha(alpha, planes[0], **call),
            reference.upsample_alpha(alpha, planes[0], **call),
            scale=ALPHA_SCALE,
        )
    for sigma in (0.7, 9.0):
        actual = cupy_kernels.masked_blur(planes, alpha, sigma=sigma, depth=depth)
        assert_samples(actual, reference.masked_blur(planes, alpha, sigma=sigma, depth=depth))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for channels_last in (False, True):
            colour = {"size": small, "matrix": "bt2020", "full_range": False, "depth": depth}
            colour |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
            colour |= {"dtype": dtype, "channels_last": channels_last}
            actual, expected = (f.frame_to_input(planes, **colour) for f in (cupy_kernels, reference))
            assert_floats(actual, expected, scale=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("size", "small"), [((16, 24), (4, 6)), ((9, 11), (3, 2)), ((1, 1), (1, 1))])
def test_boundary_attention(
    size: tuple[int, int], small: tuple[int, int], layout: torch.memory_format, dtype: torch.dtype
) -> None:
    logits = torch.randn(2, 1, *small).to(dtype)
    image = torch.randn(2, 3, *size).to(dtype).contiguous(memory_format=layout)
    results = []
    for module in (cupy_kernels, reference):
        leaves = logits.clone().requires_grad_(), image.clone().requires_grad_()
        out = module.boundary_attention(*leaves, temperature=4.0)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        assert_floats(actual, expected, scale=4)

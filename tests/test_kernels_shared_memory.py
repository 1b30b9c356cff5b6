"""The CUDA kernels that use shared memory, run on the CPU: sobel_gradient and refine_loss.

As in test_kernels_emulated.py, but the threads of a block are real ones, as they wait for each other, and the
kernels are launched here as their launchers do.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
import torch
from tolerances import assert_floats, assert_gradients
from torch import Tensor

from banet_stream import cupy_kernels, reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

# Fewer than on a GPU, or a test would take minutes.
FEWER = {"gradient_threads = 256": "gradient_threads = 16", "range_blocks = 64": "range_blocks = 8"}
BEFORE = """
#include "common.h"
#include <barrier>
#include <thread>
#include <vector>
struct Index { unsigned x, y, z; };
static Index blockIdx, gridDim, blockDim{16, 1, 1};
static thread_local Index threadIdx;
static std::barrier<> block(16);
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __syncthreads() block.arrive_and_wait()
#define __CUDACC_RTC__
"""
# Blocks come one after the other: they share what `__shared__` made static.
LAUNCH = """
template <typename F>
static void run(unsigned columns, unsigned rows, F kernel) {
  gridDim = {columns, rows, 1};
  std::vector<std::thread> threads;
  std::barrier step(16, []() noexcept { if (++blockIdx.x == gridDim.x) blockIdx.x = 0, ++blockIdx.y; });
  blockIdx = {0, 0, 0};
  for (unsigned t = 0; t < 16; ++t) threads.emplace_back([&, t] {
    threadIdx = {t, 0, 0};
    while (blockIdx.y < rows) kernel(), step.arrive_and_wait();
  });
  for (auto& thread : threads) thread.join();
}
"""
SOBEL = """
extern "C" void forward(float* size, float* way, const float* image, int n, int c, int h, int w) {
  std::vector<float> bounds(n * 16);
  const unsigned blocks = (h * w + 15) / 16;
  run(8, n, [&] { sobel_range_f32(bounds.data(), image, c, h, w); });
  run(blocks, n, [&] { sobel_forward_f32(size, way, image, bounds.data(), c, h, w); });
}
extern "C" void backward(float* out, const float* of_size, const float* of_way, const float* image,
                         int n, int c, int h, int w) {
  const unsigned blocks = (h * w + 15) / 16;
  std::vector<float> bounds(n * 16), pulled(2 * n * h * w), back(n * h * w);
  std::vector<double> parts(n * 4 * blocks), extremes(2 * n);
  run(8, n, [&] { sobel_range_f32(bounds.data(), image, c, h, w); });
  run(blocks, n, [&] { sobel_pull_f32(pulled.data(), of_size, of_way, image, bounds.data(), c, h, w); });
  run(blocks, n, [&] {
    sobel_adjoint_f32(back.data(), parts.data(), pulled.data(), image, bounds.data(), c, h, w);
  });
  run(1, n, [&] { sobel_extremes(extremes.data(), parts.data(), blocks); });
  run(blocks, n, [&] { sobel_finish_f32(out, back.data(), extremes.data(), image, bounds.data(), c, h, w); });
}
"""
REFINE = """
extern "C" void forward(float* out, const float* image, const float* seen, const float* mask,
                        int n, int c, int h, int w) {
  const unsigned blocks = (h * w + 15) / 16;
  std::vector<float> one(n * 16), two(n * 16);
  std::vector<double> parts(n * blocks);
  run(8, n, [&] { refine_range_f32(one.data(), image, c, h, w); });
  run(8, n, [&] { refine_range_f32(two.data(), seen, 1, h, w); });
  run(blocks, n, [&] {
    refine_forward_f32(parts.data(), image, one.data(), seen, two.data(), mask, c, h, w, 1.5, 0.5, 0.5);
  });
  run(1, 1, [&] { refine_sum_f32(out, parts.data(), static_cast<int64_t>(n) * blocks); });
}
extern "C" void backward(float* to_image, float* to_seen, const float* image, const float* seen,
                         const float* mask, int n, int c, int h, int w) {
  const unsigned blocks = (h * w + 15) / 16;
  const float grad = 1;
  std::vector<float> one(n * 16), two(n * 16), pulled(2 * n * h * w), other(2 * n * h * w), back(n * h * w);
  std::vector<double> parts(n * 4 * blocks), extremes(2 * n);
  run(8, n, [&] { refine_range_f32(one.data(), image, c, h, w); });
  run(8, n, [&] { refine_range_f32(two.data(), seen, 1, h, w); });
  run(blocks, n, [&] {
    refine_pull_f32(pulled.data(), other.data(), &grad, image, one.data(), seen, two.data(), mask, c, h, w,
                    1.5, 0.5, 0.5);
  });
  const auto finish = [&](float* out, auto& pulled, const float* of, int channels, auto& bounds) {
    run(blocks, n, [&] {
      refine_adjoint_f32(back.data(), parts.data(), pulled.data(), of, bounds.data(), channels, h, w);
    });
    run(1, n, [&] { refine_extremes(extremes.data(), parts.data(), blocks); });
    run(blocks, n, [&] {
      refine_finish_f32(out, back.data(), extremes.data(), of, bounds.data(), channels, h, w);
    });
  };
  finish(to_image, pulled, image, c, one), finish(to_seen, other, seen, 1, two);
}
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    folder, loaded = tmp_path_factory.mktemp("shared"), {}
    header = (cupy_kernels.csrc() / "gradient_cuda.h").read_text()
    for there, here in FEWER.items():
        assert there in header
        header = header.replace(there, here)
    (folder / "gradient_cuda.h").write_text(header)
    for name, launches in (("sobel_gradient", SOBEL), ("refine_loss", REFINE)):
        source, target = folder / f"{name}.cpp", folder / f"{name}.so"
        kernels = cupy_kernels.source_of(name)
        source.write_text(BEFORE + kernels + LAUNCH + launches)
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", f"-I{cupy_kernels.csrc()}"]
        subprocess.run([*command, str(source), "-o", str(target)], check=True, timeout=120)
        loaded[name] = ctypes.CDLL(str(target))
    return loaded


def call(function: ctypes._NamedFuncPointer, *given: Tensor | int) -> None:
    function(*(ctypes.c_void_p(v.data_ptr()) if isinstance(v, Tensor) else v for v in given))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 31), (1, 9), (2, 2)])
def test_sobel_gradient(libraries: dict[str, ctypes.CDLL], size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(1)
    library, image = libraries["sobel_gradient"], torch.randn(2, channels, *size).requires_grad_()
    expected = reference.sobel_gradient(image)
    found = [torch.empty_like(part) for part in expected]
    call(library.forward, *found, image, *image.shape)
    size_found, size_expected = found[0], expected[0].detach()
    assert_floats(size_found, size_expected, scale=4)
    assert_floats(size_found * found[1], size_expected * expected[1].detach(), scale=4)
    back = [torch.randn_like(part) for part in expected]
    (wanted,) = torch.autograd.grad(expected, image, back)
    gradient = torch.empty_like(image)
    call(library.backward, gradient, *back, image, *image.shape)
    assert_gradients(gradient, wanted)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 31), (1, 9), (2, 2)])
def test_refine_loss(libraries: dict[str, ctypes.CDLL], size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(1)
    library, image = libraries["refine_loss"], torch.randn(2, channels, *size).requires_grad_()
    seen, mask = torch.rand(2, 1, *size).requires_grad_(), (torch.rand(2, 1, *size) > 0.4).float()
    weights = {"balance": 1.5, "direction_weight": 0.5, "magnitude_weight": 0.5}
    expected = reference.refine_loss(image, seen, mask, **weights) * mask.sum().clamp(min=1)
    found = torch.empty(())
    call(library.forward, found, image, seen, mask, *image.shape)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)
    gradients = [torch.empty_like(leaf) for leaf in (image, seen)]
    call(library.backward, *gradients, image, seen, mask, *image.shape)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, (image, seen)), strict=True):
        assert_gradients(gradient, wanted)

"""The launchers at the end of the .cu files, run on the CPU with the kernels that they launch.

As in test_kernels_emulated.py g++ compiles them; here all at once, as an extension of its own. A launch is a
loop over blocks and threads or, where these wait for each other, over blocks of real threads. What is left
to a GPU: streams, graphs, races.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from operator_inputs import SIZES, SUBSAMPLINGS, frame, matte, padded, seen, spread
from tolerances import ALPHA_SCALE, FILTER_SCALE, assert_floats, assert_gradients, assert_samples

from banet_stream import compiled, cupy_kernels, reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

# Fewer threads than on a GPU: where they wait for each other they are real ones.
FEWER = {"gradient_threads = 256": "gradient_threads = 16", "range_blocks = 64": "range_blocks = 8"}
LAUNCH = {
    r"#include <cuda_runtime.h>": '#include "loops.h"',
    r"constexpr int threads = 256": "constexpr int threads = 16",
    r": guard_\(.*\) \{[^}]*\}": "{ (void)t; }",
    r"kernel<<<blocks_for\(items\).*>>>(\(.*\));": r"one_by_one(blocks_for(items), [&] { kernel\1; });",
    r"kernel<<<blocks,.*>>>(\(.*\));": r"at_once(blocks, [&] { kernel\1; });",
    r"STD_CUDA_KERNEL_LAUNCH_CHECK\(\);": "",
    r"  torch::stable::accelerator::DeviceGuard guard_;\n  cudaStream_t stream_;\n": "",
}
LOOPS = """
#pragma once
#include <barrier>
#include <thread>
#include <vector>
struct dim3 { unsigned x = 1, y = 1, z = 1; };
static dim3 blockIdx, gridDim, blockDim{16, 1, 1};
static thread_local dim3 threadIdx;
static std::barrier<> block(16);
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __syncthreads() block.arrive_and_wait()

template <typename F>
void one_by_one(unsigned blocks, F kernel) {
  for (blockIdx = {0, 0, 0}; blockIdx.x < blocks; ++blockIdx.x) {
    for (threadIdx = {0, 0, 0}; threadIdx.x < 16; ++threadIdx.x) kernel();
  }
}

template <typename F>
void at_once(dim3 blocks, F kernel) {
  gridDim = blocks, blockIdx = {0, 0, 0};
  std::vector<std::thread> threads;
  std::barrier step(16, []() noexcept { if (++blockIdx.x == gridDim.x) blockIdx.x = 0, ++blockIdx.y; });
  for (unsigned t = 0; t < 16; ++t) threads.emplace_back([&, t] {
    threadIdx = {t, 0, 0};
    while (blockIdx.y < blocks.y) kernel(), step.arrive_and_wait();
  });
  for (auto& thread : threads) thread.join();
}
"""


def replaced(path: Path, changes: dict[str, str]) -> str:
    text = path.read_text()
    for there, here in changes.items():
        text, count = re.subn(there, here, text)
        assert count, there
    return text


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What ``torch.ops.banet_stream`` is on a GPU, for CPU tensors."""
    folder, csrc = tmp_path_factory.mktemp("launched"), cupy_kernels.csrc()
    for path in csrc.glob("*.h"):
        shutil.copy(path, folder)
    (folder / "loops.h").write_text(LOOPS)
    (folder / "launch.h").write_text(replaced(csrc / "launch.h", LAUNCH))
    (folder / "gradient_cuda.h").write_text(replaced(csrc / "gradient_cuda.h", FEWER))
    sources = [path.read_text() for path in (csrc / "module.cpp", *sorted(csrc.glob("*.cu")))]
    source, target = folder / "launched.cpp", folder / "launched.so"
    text = '#include "common.h"\n#include "loops.h"\n' + "\n".join(sources)
    text = text.replace("banet_stream, CUDA", "banet_launched, CPU")
    source.write_text(text.replace("LIBRARY(banet_stream", "LIBRARY(banet_launched"))
    torch_folder = Path(torch.__file__).parent
    command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", f"-I{folder}"]
    command += ["-isystem", str(torch_folder / "include")]
    command += ["-isystem", sysconfig.get_paths()["include"]]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", str(source), "-o", str(target)]
    command += [f"-L{torch_folder / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    torch.ops.load_library(str(target))
    return torch.ops.banet_launched


@pytest.fixture(autouse=True)
def on_the_cpu(operators: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiled, "_ops", operators)
    torch.use_deterministic_algorithms(True)  # and memory that nothing was written to holds NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize(("size", "small"), SIZES)
def test_composite(
    size: tuple[int, int], small: tuple[int, int], subsampling: tuple[int, int], depth: int
) -> None:
    front = [padded(p) for p in frame(size, depth=depth, subsampling=subsampling)]
    back, alpha = frame(size, depth=depth, subsampling=subsampling, seed=1), spread(matte(small))
    for upsampling, decontaminate, wrap in product(("guided", "bilinear"), (True, False), (0.0, 0.6)):
        options: dict[str, Any] = {"depth": depth, "subsampling": subsampling, "upsampling": upsampling}
        options |= {"decontaminate": decontaminate, "light_wrap": wrap}
        actual = compiled.composite(front, alpha, back, **options)
        assert_samples(actual, reference.composite(front, alpha, back, **options))


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(("size", "small"), SIZES)
def test_the_other_frame_operators(size: tuple[int, int], small: tuple[int, int], depth: int) -> None:
    planes, alpha = [spread(p) for p in frame(size, depth=depth)], spread(matte(small))
    for upsampling in ("guided", "bilinear"):
        call: dict[str, Any] = {"depth": depth, "upsampling": upsampling}
        actual = compiled.upsample_alpha(alpha, planes[0], **call)
        assert_floats(actual, reference.upsample_alpha(alpha, planes[0], **call), scale=ALPHA_SCALE)
    for sigma in (0.7, 9.0):
        blurred = compiled.masked_blur(planes, alpha, sigma=sigma, depth=depth)
        assert_samples(blurred, reference.masked_blur(planes, alpha, sigma=sigma, depth=depth))
    for dtype, channels_last in product((torch.float32, torch.float16, torch.bfloat16), (False, True)):
        colour: dict[str, Any] = {"size": small, "matrix": "bt2020", "full_range": False, "depth": depth}
        colour |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
        colour |= {"dtype": dtype, "channels_last": channels_last}
        found, expected = (f.frame_to_input(planes, **colour) for f in (compiled, reference))
        assert_floats(found, expected, scale=3)


@pytest.mark.parametrize("size", [(1, 1), (1, 23), (23, 1), (33, 47)])
def test_mattes(size: tuple[int, int]) -> None:
    alpha, image = spread(matte(size)), seen(size).mT.contiguous().mT
    filtered = compiled.guided_filter(alpha, image)
    assert_floats(filtered, reference.guided_filter(alpha, image), scale=FILTER_SCALE["cuda"])
    before, options = matte(size).roll(5, 1), {"certain": 0.25, "steady": 0.35}
    steady = compiled.steady_alpha(alpha, before, **options)
    assert_floats(steady, reference.steady_alpha(alpha, before, **options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("size", "small"), [((16, 24), (4, 6)), ((9, 11), (3, 2)), ((1, 1), (1, 1))])
def test_boundary_attention(
    operators: Any,
    size: tuple[int, int],
    small: tuple[int, int],
    layout: torch.memory_format,
    dtype: torch.dtype,
) -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 1, *small, generator=random).to(dtype).requires_grad_()
    image = torch.randn(2, 3, *size, generator=random).to(dtype).contiguous(memory_format=layout)
    expected = reference.boundary_attention(logits, image, temperature=4.0)
    found = compiled.boundary_attention(logits.detach(), image, temperature=4.0)
    assert_floats(found, expected.detach())
    grad = torch.randn(found.shape, generator=random).to(dtype)
    (wanted,) = torch.autograd.grad(expected, logits, grad)
    back = operators.boundary_attention_backward(grad[:, 3:], found[:, 3:], *small, dtype, 4.0)
    assert_floats(back, wanted, scale=4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 31), (1, 9), (2, 2)])
def test_gradients_and_their_loss(
    operators: Any, size: tuple[int, int], channels: int, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(1)
    image = torch.randn(2, channels, *size, generator=random, dtype=dtype).requires_grad_()
    expected = reference.sobel_gradient(image)
    found = operators.sobel_gradient(image.detach())
    assert_floats(found[0], expected[0].detach(), scale=4)
    assert_floats(found[0] * found[1], (expected[0] * expected[1]).detach(), scale=4)
    back = [torch.randn(part.shape, generator=random, dtype=dtype) for part in expected]
    (wanted,) = torch.autograd.grad(expected, image, back)
    assert_gradients(operators.sobel_gradient_backward(*back, image.detach()), wanted)

    prediction = torch.rand(2, 1, *size, generator=random, dtype=dtype).requires_grad_()
    mask = (torch.rand(2, 1, *size, generator=random) > 0.4).to(dtype)
    options = {"balance": 1.5, "direction_weight": 0.5, "magnitude_weight": 0.25}
    loss = reference.refine_loss(image, prediction, mask, **options) * mask.sum().clamp(min=1)
    given = image.detach(), prediction.detach(), mask, *options.values()
    torch.testing.assert_close(operators.refine_loss(*given), loss.detach(), rtol=1e-4, atol=1e-4)
    one = torch.ones((), dtype=dtype)
    to_image, to_prediction = torch.autograd.grad(loss, (image, prediction))
    for want_image in (True, False):
        both = operators.refine_loss_backward(one, *given, want_image)
        assert_gradients(both[1], to_prediction)
        if want_image:
            assert_gradients(both[0], to_image)

"""Every CUDA kernel compiles, on machines without a GPU too: with nvcc as the extension builds it, and with
NVRTC to a cubin as CuPy does for people without a toolkit. A kernel that doesn't compile can't land."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from banet_stream import cupy_kernels

CSRC = Path(__file__).parents[1] / "csrc"
KERNELS = sorted(CSRC.glob("*.cu"))
ARCHITECTURE = "sm_90"  # one, to save time; the build makes all


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("source", KERNELS, ids=lambda p: p.stem)
def test_nvcc_compiles(source: Path, tmp_path: Path) -> None:
    include = Path(torch.__file__).parent / "include"
    command = ["nvcc", "-std=c++17", "-O3", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command += ["-Xcompiler", "-fPIC", "-isystem", str(include), "-arch", ARCHITECTURE]
    command += ["-c", str(source), "-o", str(tmp_path / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    """From the wheel that brings it (NVIDIA's driver is not needed to compile)."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    libraries = [
        sorted(path for folder in folders for path in folder.glob(f"*/lib/{name}.so*"))
        for name in ("libnvrtc-builtins", "libnvrtc")
    ]
    if not all(libraries):
        pytest.skip("no NVRTC: pip install nvidia-cuda-nvrtc (Linux on x86-64 only in the dev extra)")
    builtins, compiler = (str(found[0]) for found in libraries)
    ctypes.CDLL(builtins, mode=ctypes.RTLD_GLOBAL)  # the compiler would look for it on the system's path
    return ctypes.CDLL(compiler)


@pytest.mark.parametrize("source", KERNELS, ids=lambda p: p.stem)
def test_nvrtc_compiles(source: Path, nvrtc: ctypes.CDLL) -> None:
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text, name = source.read_bytes(), source.name.encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None) == 0
    options = [option.encode() for option in (*cupy_kernels.options(), f"-arch={ARCHITECTURE}")]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()[-3000:]
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    cubin = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
    kernels = re.findall(r'extern "C" __global__ void (\w+)', source.read_text())
    assert kernels
    assert all(kernel.encode() in cubin.raw for kernel in kernels)


def test_a_changed_header_changes_the_options_by_which_cupy_keeps_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_kernels, "csrc", lambda: tmp_path)
    found = set()
    for text in ("// one\n", "// two\n"):
        (tmp_path / "common.h").write_text(text)
        found.add(cupy_kernels.options.__wrapped__())
    assert len(found) == 2

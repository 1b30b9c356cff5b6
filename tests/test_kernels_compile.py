"""Every CUDA kernel compiles, on machines without a GPU too: with nvcc as the extension builds it, and with
NVRTC to a cubin as CuPy does for people without a toolkit. A kernel that doesn't compile can't land."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import setuptools
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


NVCC = """#!/bin/sh
case $1 in
--version) echo "Cuda compilation tools, release {release}, V{release}.1" ;;
--list-gpu-arch) for number in {known}; do echo compute_$number; done ;;
esac
"""
ALL_KNOWN = "75 80 86 87 89 90 100 120"


def sources_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, release: str | None, known: str = ALL_KNOWN
) -> list[str]:
    """What setup.py would compile for a torch of CUDA 13.0, beside an nvcc of that release."""
    from torch.utils import cpp_extension  # it looks for a toolkit when imported

    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    if release:
        nvcc.write_text(NVCC.format(release=release, known=known))
        nvcc.chmod(0o755)
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(folder))
    monkeypatch.chdir(CSRC.parent)
    runpy.run_path("setup.py", run_name="__main__")
    (extension,) = given["ext_modules"]
    sources: list[str] = extension.sources
    return sources


@pytest.fixture
def build_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without the builder's own wishes; what setup.py sets is taken back."""
    for name in ("BANET_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    return monkeypatch


def test_an_nvcc_that_fits_builds_the_kernels(tmp_path: Path, build_environment: pytest.MonkeyPatch) -> None:
    built = sources_built(tmp_path, build_environment, release="13.1")
    assert sum(name.endswith(".cu") for name in built) == len(KERNELS)


@pytest.mark.parametrize(
    ("release", "known", "reason"),
    [
        ("12.0", ALL_KNOWN, "nvcc is of CUDA 12.0, torch of 13.0; set CUDA_HOME to a toolkit of CUDA 13"),
        ("13.0", "75 80 86 87 89 90", "nvcc does not know the architectures 10.0, 12.0; set CUDA_HOME to"),
        (None, "", "nvcc does not run (No such file or directory); set CUDA_HOME to"),
    ],
)
def test_an_nvcc_that_does_not_fit_is_named_and_left_alone(
    tmp_path: Path,
    build_environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    release: str | None,
    known: str,
    reason: str,
) -> None:
    built = sources_built(tmp_path / "auto", build_environment, release=release, known=known)
    assert built
    assert not any(name.endswith(".cu") for name in built)
    said = capsys.readouterr().err
    assert "installing WITHOUT its CUDA kernels: " in said
    assert reason in said
    build_environment.setenv("BANET_CUDA", "1")
    with pytest.raises(SystemExit, match=re.escape(reason)):
        sources_built(tmp_path / "forced", build_environment, release=release, known=known)


def test_architectures_asked_for_are_those_that_nvcc_must_know(
    tmp_path: Path, build_environment: pytest.MonkeyPatch
) -> None:
    build_environment.setenv("TORCH_CUDA_ARCH_LIST", "8.6 9.0a+PTX")
    built = sources_built(tmp_path, build_environment, release="13.0", known="75 80 86 90")
    assert any(name.endswith(".cu") for name in built)

"""Every CUDA kernel compiles, on machines without a GPU too: with nvcc as the extension builds it, and with
NVRTC to a cubin as CuPy does for people without a toolkit. A kernel that doesn't compile can't land."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

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


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="no CuPy")
@pytest.mark.parametrize("source", KERNELS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore")  # CuPy's own, where there is no driver
def test_nvrtc_compiles(source: Path) -> None:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source.read_text(), source.name, (), ())
    try:
        nvrtc.compileProgram(program, ("-std=c++17", f"-arch={ARCHITECTURE}", f"-I{CSRC}"))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program)[-3000:])
    cubin = nvrtc.getCUBIN(program)
    names = re.findall(r'extern "C" __global__ void (\w+)', source.read_text())
    assert names
    assert all(name.encode() in cubin for name in names)

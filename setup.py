"""The compiled operators, and nothing else: metadata and settings are in pyproject.toml.

CUDA kernels are built when torch was built for CUDA and a toolkit that fits it is there (CUDA_HOME), unless
BANET_CUDA=0; BANET_CUDA=1 makes a missing or unfit toolkit an error. Nothing is downloaded, no GPU is asked
for.
Without a C++ compiler or Python's headers the package installs without them and runs on their references.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import setup

STABLE_ABI = "0x020a000000000000"  # torch 2.10: one build serves it and everything after
# Turing to Blackwell, and PTX for what comes after; TORCH_CUDA_ARCH_LIST overrides.
ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"


def options() -> dict[str, Any]:
    try:
        import torch  # noqa: PLC0415
        from torch.utils import cpp_extension  # noqa: PLC0415
    except ImportError:
        return without_operators(
            "torch is not importable here; install it first and pass --no-build-isolation"
        )
    compiler = os.environ.get("CXX", "c++").split()[0]
    if not (shutil.which(compiler) or shutil.which("g++") or shutil.which("clang++")):
        return without_operators(f"no C++ compiler ({compiler} is not on the PATH)")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not headers.exists():
        return without_operators(f"no {headers}: Python's headers are missing (Debian: python3-dev)")
    wanted = os.environ.get("BANET_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"BANET_CUDA must be 0 or 1, got {wanted!r}")
    toolkit = torch.version.cuda is not None and cpp_extension.CUDA_HOME is not None
    if wanted == "1" and not toolkit:
        raise SystemExit(
            f"BANET_CUDA=1, but torch {torch.__version__} is built for CUDA {torch.version.cuda} "
            f"and the toolkit is at {cpp_extension.CUDA_HOME}: both must be there"
        )
    unfit = what_hinders(cpp_extension.CUDA_HOME, torch.version.cuda) if toolkit and wanted != "0" else ""
    if unfit and wanted == "1":
        raise SystemExit(f"BANET_CUDA=1, but {unfit}")
    if unfit:
        say_aloud(
            f"installing WITHOUT its CUDA kernels: {unfit}.\n"
            "The CPU's operators are built. BANET_CUDA=0 leaves the kernels out without this message."
        )
    return {
        "ext_modules": [extension(toolkit and wanted != "0" and not unfit)],
        "cmdclass": {"build_ext": build_command()},
    }


def what_hinders(home: str, torch_cuda: str) -> str:
    """Why the toolkit's nvcc can't build the kernels for this torch, and what to do; empty: nothing.

    torch refuses another major version of CUDA; nvcc refuses architectures that it does not know.
    """
    nvcc = Path(home) / "bin" / "nvcc"
    try:
        version, known = (
            subprocess.run([nvcc, option], capture_output=True, text=True, check=False).stdout
            for option in ("--version", "--list-gpu-arch")
        )
    except OSError as error:
        return f"{nvcc} does not run ({error.strerror}); set CUDA_HOME to a toolkit of CUDA {torch_cuda}"
    release = re.search(r"release ((\d+)\.\d+)", version)
    if release is None:
        return f"{nvcc} does not tell its version; set CUDA_HOME to a toolkit of CUDA {torch_cuda}"
    if not torch_cuda.startswith(f"{release[2]}."):
        return (
            f"{nvcc} is of CUDA {release[1]}, torch of {torch_cuda}; set CUDA_HOME to a toolkit of "
            f"CUDA {torch_cuda}, or install a torch of CUDA {release[2]}"
        )
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES
    there = re.findall(r"compute_(\d+)", known)  # empty where it can't list them: then the build tells
    missing = [
        arch for arch in re.findall(r"\d+\.\d+", listed) if there and arch.replace(".", "") not in there
    ]
    if missing:
        return (
            f"{nvcc} does not know the architectures {', '.join(missing)}; set CUDA_HOME to another toolkit "
            f"of CUDA {torch_cuda}, or TORCH_CUDA_ARCH_LIST to your GPU's (8.6, for example)"
        )
    return ""


def build_command() -> Any:
    from torch.utils import cpp_extension  # noqa: PLC0415

    class Build(cpp_extension.BuildExtension):  # type: ignore[misc]
        """As torch's, but name.cpp and name.cu become two objects, not one file written twice."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, use_ninja=bool(shutil.which("ninja")), **options)

        def build_extensions(self) -> None:
            plain = self.compiler.object_filenames

            def object_filenames(sources: list[str], *rest: Any, **more: Any) -> list[str]:
                names = [plain([source], *rest, **more)[0] for source in sources]
                return [
                    name[: -len(".o")] + ".cu.o" if source.endswith(".cu") else name
                    for source, name in zip(sources, names, strict=True)
                ]

            self.compiler.object_filenames = object_filenames
            super().build_extensions()

    return Build


def extension(cuda: bool) -> Any:
    from torch.utils import cpp_extension  # noqa: PLC0415

    define = f"-DTORCH_TARGET_VERSION={STABLE_ABI}"
    sources = sorted(str(path) for path in Path("csrc").glob("*.cpp"))
    # No flag here changes a result; square roots and comparisons only vectorise with the two `no`s.
    vectorise = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
    flags = {"cxx": ["-std=c++17", *vectorise, "-g0", "-Wall", define]}
    if not cuda:
        return cpp_extension.CppExtension("banet_stream._C", sources, extra_compile_args=flags)
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    sources += sorted(str(path) for path in Path("csrc").glob("*.cu"))
    flags["nvcc"] = ["-std=c++17", "-O3", "-DUSE_CUDA", define]
    return cpp_extension.CUDAExtension("banet_stream._C", sources, extra_compile_args=flags)


def without_operators(reason: str) -> dict[str, Any]:
    say_aloud(
        f"installing WITHOUT its compiled operators: {reason}.\n"
        "It will work, many times slower; `banet-stream doctor` shows what serves each operator."
    )
    return {}


def say_aloud(text: str) -> None:
    line = "*" * 78
    sys.stderr.write(f"{line}\nbanet-stream: {text}\n{line}\n")


setup(**options())

"""Which implementation serves an operator, and what is said when the asked-for one is not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from operator_inputs import frame, matte

from banet_stream import backends, cupy_kernels, ops
from banet_stream.errors import DeviceError

COMPOSITE = (
    "import torch; from banet_stream import ops; p = [torch.zeros(4, 4, dtype=torch.uint8)] * 3; "
    "ops.composite(p, torch.zeros(2, 2), p, subsampling=(1, 1))"
)


def run_forced(backend: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BANET_BACKEND": backend, "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_compiled_operators_serve_the_cpu() -> None:
    assert backends.describe().keys() == set(backends.OPERATORS)
    assert all("cpu: compiled" in line for line in backends.describe().values())


def test_every_operator_has_a_reference() -> None:
    with backends.using("reference"):
        assert all("cpu: reference" in line for line in backends.describe().values())


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_environment_forces_a_backend(backend: str) -> None:
    code = f"{COMPOSITE}; from banet_stream import backends; print(backends.describe()['composite'])"
    done = run_forced(backend, code)
    assert f"cpu: {backend} (BANET_BACKEND)" in done.stdout, done.stderr


def test_a_forced_backend_that_is_absent_fails() -> None:
    done = run_forced("tensorrt", COMPOSITE)
    assert "DeviceError: BANET_BACKEND must be one of compiled, cupy, reference, got tensorrt" in done.stderr
    # CuPy never serves the CPU, with a GPU or without.
    assert "DeviceError: composite: BANET_BACKEND=cupy, but" in run_forced("cupy", COMPOSITE).stderr


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(DeviceError, match="backend must be one of compiled, cupy, reference, got fast"):  # noqa: SIM117
        with backends.using("fast"):
            pass


def test_a_missing_extension_is_said_aloud_and_the_references_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ImportError("the extension is not built")

    monkeypatch.setattr(backends, "load_compiled", absent)
    monkeypatch.setattr(backends, "_table", backends.Table(""))
    assert backends.describe()["composite"].startswith(
        "cpu: reference, not compiled: the extension is not built"
    )
    planes = frame((8, 8))
    assert len(ops.composite(planes, matte((4, 4)), planes)) == 3


CUPY_BANNER = """
try:
    raise ImportError("libcuda.so.1: cannot open shared object file")
except ImportError as error:
    raise ImportError("\\n=====\\nFailed to import CuPy.\\n") from error
"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CUPY_BANNER, "libcuda.so.1: cannot open shared object file"),
        ("raise AttributeError('no attribute float')", "no attribute float"),
    ],
)
def test_a_cupy_that_does_not_load_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, reason: str
) -> None:
    (tmp_path / "cupy.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    table = backends.Table("")
    assert table.reasons["cupy"] == f"cupy is there but does not load: {reason}"
    assert all(backend != "cupy" for backend, _ in table.choice.values())


def test_a_cupy_that_loads_serves_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cupy.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    table = backends.Table("cupy")
    del sys.modules["cupy"]
    assert {name for name, _ in table.choice} == set(cupy_kernels.SERVED)


def test_tensors_on_another_device_are_refused() -> None:
    planes = [p.to("meta") for p in frame((8, 8))]
    with pytest.raises(DeviceError, match="no implementation for tensors on meta"):
        ops.composite(planes, torch.empty(4, 4, device="meta"), planes)

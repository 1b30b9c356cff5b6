"""Engines: what OpenVINO computes is what PyTorch computes, and its graph cache can't break anything."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import portrait
from safetensors.torch import load_file, save_file
from threads import call_from_threads
from torch._subclasses.fake_tensor import FakeTensorMode

from banet_stream import Matter, cli
from banet_stream.engines import WEIGHTS, TorchEngine, load_engine, load_network
from banet_stream.errors import DeviceError, MatteError, WeightsError
from banet_stream.network import BANet, upsample
from banet_stream.openvino_engine import Enlarge, OpenVinoEngine
from training.data import to_input

CPU = torch.device("cpu")
# bfloat16 keeps 8 bits: a matte of 1 is off by 1/256 after one rounding, and there are some fifty layers.
BFLOAT16 = 0.05
INT8 = 0.01  # on average


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BANET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 96), (2, 3, 96, 64), (1, 3, 50, 77), (1, 3, 1, 1), (1, 3, 288, 512)]
)
@pytest.mark.parametrize("channels", [64, 512])
def test_openvino_computes_what_torch_computes(shape: tuple[int, ...], channels: int) -> None:
    torch.manual_seed(1)
    network = load_network("banet64") if channels == 64 else BANet(channels)
    expected = TorchEngine(network, CPU, "float32").outputs(picture(*shape))
    found = OpenVinoEngine(network, "float32").outputs(picture(*shape))
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_bfloat16_is_close_to_float32() -> None:
    try:
        fast = OpenVinoEngine(load_network("banet64"), "bfloat16")
    except DeviceError as error:
        pytest.skip(str(error))
    exact = OpenVinoEngine(load_network("banet64"), "float32")
    assert (fast(picture(1, 3, 288, 512)) - exact(picture(1, 3, 288, 512))).abs().max() < BFLOAT16


def test_int8_is_close_to_float32() -> None:
    assert Matter(device="cpu").engine.precision == "int8"
    rgb = np.asarray(portrait(640, 480))
    fast, exact = (Matter(device="cpu", precision=p).alpha(rgb) for p in ("int8", "float32"))
    assert np.abs(fast - exact).mean() < INT8
    assert 100 * np.minimum(fast, exact).sum() / np.maximum(fast, exact).sum() > 98


@pytest.mark.parametrize("shape", [(256, 448), (448, 256), (150, 211), (288, 512)])
def test_int8_is_close_to_float32_at_every_size_and_in_batches(shape: tuple[int, int]) -> None:
    """OpenVINO 2026.4 computed another form of the graph (``Enlarge`` by a pixel shuffle) wrongly."""
    fast, exact = (load_engine("banet64", device="cpu", precision=p) for p in ("int8", "float32"))
    rgb = torch.from_numpy(np.array(portrait(*shape[::-1])))
    images = torch.cat([to_input(seen[None]) for seen in (rgb, rgb.flip(1))])
    for found, expected in zip(fast.outputs(images), exact.outputs(images), strict=True):
        assert found.shape == expected.shape == (2, 1, *shape)
        assert (found - expected).abs().mean((1, 2, 3)).max() < INT8


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1), (8, 14)])
def test_enlarge_is_upsample(shape: tuple[int, int], factor: int) -> None:
    small = picture(2, 1, *shape)
    torch.testing.assert_close(Enlarge(factor)(small), upsample(small, factor))


def test_auto_takes_floats_where_int8_was_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert load_engine("banet64", device="cpu").precision in {"bfloat16", "float32"}
    assert load_engine("banet64", device="cpu", precision="int8").precision == "int8"


def test_int8_runs_in_8_bits() -> None:
    graph = load_engine("banet64", device="cpu", precision="int8")._request.get_compiled_model()
    kinds = [op.get_rt_info()["runtimePrecision"].astype(str) for op in graph.get_runtime_model().get_ops()]
    layers = [op.get_rt_info()["layerType"].astype(str) for op in graph.get_runtime_model().get_ops()]
    convolutions = [k for k, layer in zip(kinds, layers, strict=True) if layer == "Convolution"]
    assert convolutions.count("i8") + convolutions.count("u8") > len(convolutions) / 2


def test_int8_is_for_openvino_alone() -> None:
    with pytest.raises(DeviceError, match="--precision int8: only OpenVINO computes in it"):
        load_engine("banet64", device="cpu", precision="int8", engine="torch")


def test_a_model_without_int8_runs_in_floats_or_is_refused(tmp_path: Path) -> None:
    copied = shutil.copy(WEIGHTS / "banet64.safetensors", tmp_path / "mine.safetensors")
    assert load_engine(copied, device="cpu").precision in {"bfloat16", "float32"}
    with pytest.raises(DeviceError, match=r"no graph in 8 bits \(mine-int8\.xml is not beside its weights"):
        load_engine(copied, device="cpu", precision="int8")


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_int8_of_other_weights_is_refused(tmp_path: Path, precision: str) -> None:
    mine = tmp_path / "mine.safetensors"
    save_file(
        {name: values + 1 for name, values in load_file(WEIGHTS / "banet64.safetensors").items()},
        mine,
        {"channels": "64", "detail_stride": "4", "temperature": "4.0", "context": "2"},
    )
    for suffix in (".xml", ".bin"):
        shutil.copy(WEIGHTS / f"banet64-int8{suffix}", tmp_path / f"mine-int8{suffix}")
    with pytest.raises(WeightsError, match=r"made from other weights than the model's, or by .*; remove it"):
        load_engine(str(mine), device="cpu", precision=precision)


def test_int8_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs may be others: half a matte would be shown."""
    monkeypatch.setattr("banet_stream.openvino_engine.GRAPH_VERSION", 1)
    with pytest.raises(WeightsError, match="by another version; remove it"):
        load_engine("banet64", device="cpu", precision="int8")


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_damaged_int8_is_refused(tmp_path: Path, suffix: str) -> None:
    for source in WEIGHTS.glob("banet64*"):
        shutil.copy(source, tmp_path)
    damaged = tmp_path / f"banet64-int8{suffix}"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 3])
    with pytest.raises(WeightsError, match="damaged"):
        load_engine(str(tmp_path / "banet64.safetensors"), device="cpu")


def test_the_graph_is_kept_and_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = OpenVinoEngine(load_network("banet64"), "float32")(picture(1, 3, 64, 64))
    assert sorted(p.suffix for p in cache.rglob("*.*")) == [".bin", ".blob", ".xml"]
    monkeypatch.setattr("banet_stream.openvino_engine.make_graph", lambda _: pytest.fail("made twice"))
    again = OpenVinoEngine(load_network("banet64"), "float32")(picture(1, 3, 64, 64))
    assert torch.equal(first, again)


@pytest.mark.parametrize("suffix", [".xml", ".bin", ".blob"])
def test_a_damaged_cache_is_made_anew(cache: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = OpenVinoEngine(load_network("banet64"), "float32")(picture(1, 3, 64, 64))
    (damaged,) = cache.rglob(f"*{suffix}")
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 3])
    assert torch.equal(OpenVinoEngine(load_network("banet64"), "float32")(picture(1, 3, 64, 64)), first)
    monkeypatch.setattr("banet_stream.openvino_engine.make_graph", lambda _: pytest.fail("not repaired"))
    assert torch.equal(OpenVinoEngine(load_network("banet64"), "float32")(picture(1, 3, 64, 64)), first)


def test_it_works_without_a_place_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BANET_CACHE", str(tmp_path / "file" / "cache"))
    assert OpenVinoEngine(load_network("banet64"), "float32")(picture(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_other_weights_have_another_graph(cache: Path) -> None:
    OpenVinoEngine(load_network("banet64"), "float32")
    other = load_network("banet64")
    with torch.no_grad():
        other.head.bias += 9
    shifted = OpenVinoEngine(other, "float32")(picture(1, 3, 64, 64))
    torch.testing.assert_close(
        shifted, TorchEngine(other, CPU, "float32")(picture(1, 3, 64, 64)), atol=1e-4, rtol=0
    )
    assert len(list(cache.glob("*.xml"))) == 2


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_no_number_is_an_error(cache: Path, value: float) -> None:
    network = load_network("banet64")
    with torch.no_grad():
        network.head.bias.fill_(value)
    with pytest.raises(MatteError, match="gave no numbers in float32"):
        OpenVinoEngine(network, "float32")(picture(1, 3, 64, 64))


def test_threads_get_their_own_results() -> None:
    engine = load_engine("banet64", device="cpu", precision="float32")
    pictures = [torch.randn(1, 3, 64, 64 + 32 * i) for i in range(4)]
    expected = [engine(image) for image in pictures]
    found = call_from_threads(engine, pictures, 10)
    assert all(torch.equal(one, wanted) for wanted, many in zip(expected, found, strict=True) for one in many)


def test_auto_takes_openvino_on_the_cpu() -> None:
    assert Matter(device="cpu", size=64).description.startswith("banet64 on openvino ")
    assert Matter(device="cpu", size=64, engine="torch").description.startswith("banet64 on torch ")


def test_without_openvino_torch_serves_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "banet_stream.openvino_engine")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_engine("banet64", device="cpu"), TorchEngine)
    assert "OpenVINO is not here" in caplog.text
    with pytest.raises(DeviceError, match="--engine openvino: "):
        load_engine("banet64", device="cpu", engine="openvino")


@pytest.mark.parametrize("device", ["cuda", "auto"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nand a trace"), "CUDA out of memory"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "CUDA error"),
    ],
)
def test_a_gpu_that_does_not_take_the_network_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    clip: Callable[[], Path],
    capsys: pytest.CaptureFixture[str],
    device: str,
    error: RuntimeError,
    reason: str,
) -> None:
    def to(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    arguments = [str(clip()), "-o", "never.mp4", "--device", device]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == DeviceError.exit_code
    said = capsys.readouterr().err.strip()
    assert re.fullmatch(
        rf"banet-stream: cuda does not take the network \({reason}.*\); use --device cpu", said
    )


def test_an_engine_knows_which_gpu_its_network_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.nn.Module()
    with FakeTensorMode():
        there.weight = torch.nn.Parameter(torch.empty(1, device="cuda"))
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_, **__: there)
    engine = TorchEngine(load_network("banet64"), torch.device("cuda"), "float16")
    assert engine.device == torch.device("cuda", 0)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(DeviceError, match="--engine tensorrt: must be auto, openvino, torch"):
        load_engine("banet64", engine="tensorrt")

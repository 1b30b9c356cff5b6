"""CUDA graphs: on a GPU what they compute, anywhere what happens where they don't work."""

from __future__ import annotations

import contextlib
import logging
import threading

import pytest
import torch
from operator_inputs import needs_cuda
from threads import call_from_threads

from banet_stream import backends, compiled, cuda_engine
from banet_stream.cuda_engine import MOST_GRAPHS, CudaEngine
from banet_stream.engines import TorchEngine, load_engine, load_network
from banet_stream.errors import DeviceError, MatteError
from banet_stream.network import BANetOutput

CPU = torch.device("cpu")


def picture(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(autouse=True)
def captured_at_once(monkeypatch):
    monkeypatch.setattr(cuda_engine, "CAPTURED_AT", 1)


class Recorded:
    """As a CUDA graph on a CPU: it answers in memory that the next call overwrites."""

    made = 0
    shift = 0.0
    repeats = False  # the matte of the picture it was made with

    def __init__(self, network, image):
        type(self).made += 1
        self.network = network
        self.output = BANetOutput(*(torch.full_like(part, 7.0) for part in network(image)))
        self.first = image.clone()

    def __call__(self, image):
        image = self.first if self.repeats else image
        for kept, new in zip(self.output, self.network(image), strict=True):
            kept.copy_(new + self.shift)
        return self.output


@pytest.fixture
def recorded(monkeypatch):
    kind = type("Recorded", (Recorded,), {"made": 0})
    monkeypatch.setattr(cuda_engine, "Captured", kind)
    return kind


@pytest.fixture
def engines():
    network = load_network("banet64")
    return TorchEngine(network, CPU, "float32"), CudaEngine(network, CPU, "float32")


def test_each_shape_is_captured_once_and_answers_stay(engines, recorded):
    plain, graphed = engines
    pictures = [picture(1, 3, 64, 64), picture(1, 3, 64, 96)]
    expected = [plain.outputs(image) for image in pictures * 2]
    found = [graphed.outputs(image) for image in pictures * 2]  # the first ones are read after the last
    for wanted, got in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    assert recorded.made == 2
    assert graphed.name == "torch (CUDA graphs)"


def test_a_shape_is_captured_when_it_comes_often(engines, recorded, monkeypatch):
    plain, graphed = engines
    monkeypatch.setattr(cuda_engine, "CAPTURED_AT", 3)
    often, seldom = picture(1, 3, 64, 64), picture(1, 3, 64, 96)
    for image, made in ((often, 0), (seldom, 0), (often, 0), (seldom, 0), (often, 1), (often, 1)):
        assert torch.equal(graphed(image), plain(image))
        assert recorded.made == made
    graphed.graphs.clear()  # others took its place: it begins anew
    graphed(often)
    assert recorded.made == 1


def test_the_shapes_used_last_are_kept(engines, recorded):
    _, graphed = engines
    shapes = [(1, 3, 32, 32 * i) for i in range(1, MOST_GRAPHS + 2)]
    for shape in (*shapes[:-1], shapes[0], shapes[-1]):
        graphed(picture(*shape))
    assert set(graphed.graphs) == {*shapes} - {shapes[1]}
    assert recorded.made == len(shapes)


def test_threads_get_their_own_answers(engines, recorded):
    plain, graphed = engines
    pictures = [torch.randn(1, 3, 64, 64) for _ in range(4)]
    expected = [plain(image) for image in pictures]
    found = call_from_threads(graphed, pictures, 8)
    assert all(torch.equal(one, wanted) for wanted, many in zip(expected, found, strict=True) for one in many)
    assert recorded.made == 1


@pytest.mark.parametrize("trouble", ["fails", "differs", "repeats", "no numbers"])
def test_where_graphs_do_not_work_the_network_does_and_says_so(
    engines, recorded, monkeypatch, caplog, trouble
):
    plain, graphed = engines
    if trouble == "fails":

        def capture(*_):
            recorded.made += 1
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        monkeypatch.setattr(cuda_engine, "Captured", capture)
    recorded.shift = {"differs": 0.5, "no numbers": float("nan")}.get(trouble, 0.0)
    recorded.repeats = trouble == "repeats"
    image = picture(1, 3, 64, 64)
    with caplog.at_level(logging.WARNING):
        found = [graphed(image) for _ in range(2)]
    assert all(torch.equal(one, plain(image)) for one in found)
    assert recorded.made == 1, "tried again for every frame"
    assert len(caplog.records) == 1
    assert "the network runs without them" in caplog.text
    assert graphed.name == "torch"


@pytest.mark.parametrize("value", [0.0, -2.0], ids=["mean", "black"])
def test_a_graph_that_repeats_a_picture_of_one_colour_is_found_out(engines, recorded, value):
    plain, graphed = engines
    recorded.repeats = True
    graphed(torch.full((1, 3, 64, 64), value))
    image = picture(1, 3, 64, 64)
    assert torch.equal(graphed(image), plain(image))


@pytest.mark.parametrize("trouble", ["fails", "differs", "no numbers"])
def test_an_attention_kernel_that_does_not_work_gives_way_to_its_reference(
    recorded, monkeypatch, caplog, trouble
):
    right, key = compiled.boundary_attention, ("boundary_attention", "cpu")

    def wrong(logits, image, *, temperature):
        if trouble == "fails":
            raise RuntimeError("invalid device function\nand a trace")
        shift = 0.1 if trouble == "differs" else float("nan")
        return right(logits, image, temperature=temperature) + shift

    network = load_network("banet64")
    for kernel in (right, wrong):
        monkeypatch.setitem(backends._table.choice, key, ("compiled", kernel))
        with caplog.at_level(logging.WARNING):
            engine = CudaEngine(network, CPU, "float32")
        assert backends.has_kernel("boundary_attention", CPU) == (kernel is right)
        assert len(caplog.records) == (kernel is wrong)
    assert "the kernel of boundary_attention does not work on cpu" in caplog.text
    image = picture(1, 3, 64, 64)
    with backends.using("reference"):
        expected = TorchEngine(network, CPU, "float32")(image)
    torch.testing.assert_close(engine(image), expected)
    monkeypatch.setitem(backends._table.choice, key, ("compiled", wrong))
    monkeypatch.setattr(backends._table, "forced", "compiled")
    with pytest.raises(
        DeviceError, match="boundary_attention: BANET_BACKEND=compiled, but it does not work on cpu"
    ):
        CudaEngine(network, CPU, "float32")


def test_one_graph_is_captured_at_a_time(engines, recorded, monkeypatch):
    alone, found = threading.Lock(), []

    class Watched(recorded):
        def __init__(self, network, image):
            found.append(alone.acquire(blocking=False))
            super().__init__(network, image)
            alone.release()

    monkeypatch.setattr(cuda_engine, "Captured", Watched)
    several = [CudaEngine(load_network("banet64"), CPU, "float32") for _ in range(4)]
    call_from_threads(lambda engine: engine(picture(1, 3, 64, 64)), several, 1)
    assert found == [True] * 4


class Stream:
    """As torch.cuda's, for the test below: whether it is current is all that is known of it."""

    current = None

    def wait_stream(self, _):
        pass


class FailingGraph:
    """As torch.cuda.graph where capturing fails: it leaves its stream the current one."""

    def __init__(self, _, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.stream = stream

    def __enter__(self):
        Stream.current = self.stream

    def __exit__(self, *_):
        raise RuntimeError("operation failed due to a previous error during capture")


def test_a_failed_capture_leaves_its_thread_on_the_stream_it_was_on(monkeypatch):
    before = Stream.current = Stream()
    patched = {
        "CUDAGraph": object,
        "Stream": Stream,
        "current_stream": lambda: Stream.current,
        "device": contextlib.nullcontext,
        "graph": FailingGraph,
        "set_stream": lambda stream: setattr(Stream, "current", stream),
        "stream": contextlib.nullcontext,
    }
    for name, stand_in in patched.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    with pytest.raises(RuntimeError, match="previous error"):
        cuda_engine.Captured(load_network("banet64"), picture(1, 3, 32, 32))
    assert Stream.current is before


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_graphs_compute_what_the_network_computes(precision, caplog):
    device, network = torch.device("cuda"), load_network("banet64")
    plain, graphed = TorchEngine(network, device, precision), CudaEngine(network, device, precision)
    for shape in [(1, 3, 64, 96), (1, 3, 288, 512), (1, 3, 64, 96), (2, 3, 50, 77)]:
        image = picture(*shape)
        for wanted, got in zip(plain.outputs(image), graphed.outputs(image), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-2, rtol=0)
    assert not caplog.records
    assert len(graphed.graphs) == 3


@needs_cuda
def test_a_gpu_gets_graphs_and_what_is_no_number_is_an_error_there_too():
    engine = load_engine("banet64", device="cuda")
    assert isinstance(engine, CudaEngine)
    engine(picture(1, 3, 64, 64))
    with pytest.raises(MatteError, match="gave no numbers"):
        engine(torch.full((1, 3, 64, 64), float("inf")))


@needs_cuda
def test_a_network_that_can_not_be_captured_runs_on_the_stream_it_was_on(caplog):
    before = torch.cuda.current_stream()
    engine = load_engine("banet64", device="cuda", precision="float32")
    image = picture(1, 3, 64, 64)
    expected, network = engine(image), engine.network
    engine.graphs.clear()
    engine.network = lambda image: (image.sum().item(), network(image))[1]  # waits for the GPU
    torch.testing.assert_close(engine(image), expected, atol=1e-2, rtol=0)
    assert "the network runs without them" in caplog.text
    assert torch.cuda.current_stream() == before

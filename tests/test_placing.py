"""Frames on the GPU beside the network: what is looked at before, and that nothing mixes devices after.

Where there is no GPU, ``cpu:0`` stands in for one (PyTorch takes it for another device than ``cpu``), and
fake tensors, which know where they lie but hold nothing, go the way that real ones would.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import types
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from operator_inputs import frame as planes_of_size
from operator_inputs import matte, needs_cuda
from PIL import Image
from tolerances import ALPHA_SCALE, COVERED, NETWORK_STEPS, assert_floats, assert_samples
from torch._subclasses.fake_tensor import FakeTensorMode

from banet_stream import backends, compiled, cupy_kernels, matting, ops, placing
from banet_stream.background import Blur, Picture, Plain, Transparent, Video
from banet_stream.compositing import compose, put_before
from banet_stream.errors import MatteError
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame
from banet_stream.matting import Matter
from banet_stream.placing import CPU, TRIALS, place_beside
from banet_stream.timings import Timings

STAND_IN, CUDA = torch.device("cpu", 0), torch.device("cuda", 0)
BACKGROUNDS = ("plain", "picture", "blur", "video")


@pytest.fixture(autouse=True)
def nothing_remembered():
    place_beside.cache_clear()
    yield
    place_beside.cache_clear()


def frame(layout: str = "yuv420p") -> Frame:
    form = PIXEL_FORMATS[layout]
    planes = planes_of_size((71, 127), depth=form.depth, subsampling=form.subsampling)
    return Frame(planes, form, Colour("bt709", False, 1, 1, 1), 0, Fraction(1, 25))


def background(kind: str, clip):
    if kind == "plain":
        return Plain((200, 30, 60))
    if kind == "picture":
        noise = np.random.default_rng(1).integers(0, 256, (80, 90, 3), np.uint8)
        return Picture(Image.fromarray(noise))
    return Blur() if kind == "blur" else Video(str(clip(frames=3, bars=True)))


def test_where_the_network_is_on_the_cpu_frames_stay(caplog):
    assert place_beside(CPU) == CPU
    assert not caplog.records


def test_frames_go_where_operators_compute_the_same(caplog):
    assert place_beside(STAND_IN) == STAND_IN
    assert not caplog.records


def test_a_device_without_kernels_gets_no_frames(caplog):
    with backends.using("reference"), caplog.at_level(logging.WARNING):
        assert place_beside(STAND_IN) == CPU
        assert place_beside(STAND_IN) == CPU
    assert caplog.text.count("frames are composited on the CPU") == 1
    assert "no kernels on cpu:0 for frame_to_input, guided_filter, steady_alpha" in caplog.text


@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.parametrize("wrong", ["other", "no number"])
def test_a_device_that_computes_otherwise_gets_no_frames(monkeypatch, caplog, name, wrong):
    right, calls = getattr(ops, name), []

    def operator(*given, **options):
        calls.append(name)
        found = right(*given, **options)
        if len(calls) < 2:  # the CPU's
            return found
        first = found[0] if isinstance(found, list) else found
        if first.is_floating_point() and wrong == "no number":
            first.view(-1)[-1] = float("nan")
        else:
            first.view(-1)[-1] += 3
        return found

    monkeypatch.setattr(ops, name, operator)
    with caplog.at_level(logging.WARNING):
        assert place_beside(STAND_IN) == CPU
    assert f"cpu:0 gives something else for {name}" in caplog.text


def test_a_device_that_fails_gets_no_frames(monkeypatch, caplog):
    def failing(*_, **__):
        raise RuntimeError("out of memory\nand a trace")

    monkeypatch.setitem(placing.TRIALS, "composite", failing)
    with caplog.at_level(logging.WARNING):
        assert place_beside(STAND_IN) == CPU
    assert "frames are composited on the CPU: cpu:0 fails (out of memory)" in caplog.text


@pytest.mark.parametrize("text", ["kernel.cu(3): error: no such thing\n\n1 error detected", ""])
def test_a_kernel_that_cupy_can_not_compile_leaves_frames_on_the_cpu(monkeypatch, caplog, text):
    class CompileException(Exception):  # CuPy's is no RuntimeError
        pass

    class RawModule:
        def __init__(self, code, options):
            assert "guided_fit_kernel" in code

        def get_function(self, name):
            raise CompileException(text)

    stream = types.SimpleNamespace(cuda_stream=0)
    given = {"Device": contextlib.nullcontext, "ExternalStream": lambda *_: contextlib.nullcontext()}
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(**given), RawModule=RawModule)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    served = ("cupy", cupy_kernels.guided_filter)
    monkeypatch.setitem(backends._table.choice, ("guided_filter", "cpu"), served)
    cupy_kernels.module.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert place_beside(STAND_IN) == CPU
    cupy_kernels.module.cache_clear()
    reason = text.partition("\n")[0] or "CompileException"
    assert f"cpu:0 fails (CuPy fails on guided_fit_kernel: {reason})" in caplog.text


def test_the_trial_tells_the_operators_apart():
    """One whose result did not depend on its input would agree with anything."""
    for name, trial in TRIALS.items():
        front, alpha, behind = placing.trial_frame(CPU)
        other = [255 - plane for plane in front], alpha.flip(0).roll(5, 1).contiguous(), behind
        assert not placing.agree(trial(front, alpha, behind), trial(*other)), name


def test_the_trial_of_steady_alpha_blends_two_mattes():
    """Of two equal ones it would give the same, whatever it computed."""
    front, alpha, behind = placing.trial_frame(CPU)
    assert not placing.agree(TRIALS["steady_alpha"](front, alpha, behind), [alpha])


@pytest.mark.parametrize("light_wrap", [0.0, 0.5])
@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_what_lies_on_a_gpu_is_composited_there_and_comes_back(clip, monkeypatch, kind, light_wrap):
    for name in TRIALS:
        monkeypatch.setitem(backends._table.choice, (name, "cuda"), ("compiled", getattr(compiled, name)))
    composited_on, right = [], ops.composite

    def composite(planes, *rest, **options):
        composited_on.append(planes[0].device)
        return right(planes, *rest, **options)

    monkeypatch.setattr(ops, "composite", composite)
    behind, here = background(kind, clip), frame()
    behind.light_wrap = light_wrap
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = here.to(CUDA)
        for _ in range(2):  # a still background is remembered
            done = put_before(there, torch.rand(36, 64, device=CUDA), behind, Timings(), keep_alpha=True)
    behind.close()
    assert composited_on == [CUDA, CUDA]
    assert [plane.device for plane in (*done.planes, done.alpha)] == [CPU] * 4
    assert [plane.shape for plane in done.planes] == [plane.shape for plane in here.planes]


def test_a_background_follows_the_frame_to_another_device(monkeypatch):
    monkeypatch.setitem(backends._table.choice, ("composite", "cuda"), ("compiled", compiled.composite))
    behind, here = Plain((1, 2, 3)), frame()
    alpha = matte((36, 64))
    expected = put_before(here, alpha, behind, Timings())
    with FakeTensorMode(allow_non_fake_inputs=True):
        put_before(here.to(CUDA), torch.rand(36, 64, device=CUDA), behind, Timings())
    found = put_before(here, alpha, behind, Timings())
    assert all(torch.equal(one, other) for one, other in zip(found.planes, expected.planes, strict=True))


def test_a_gpu_that_fails_on_the_way_is_an_error_that_says_what_to_do(monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(ops, "composite", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        put_before(frame(), matte((36, 64)), Plain((1, 2, 3)), Timings())
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(MatteError, match=r"on cuda:0 failed .*--device cpu"),
    ):
        put_before(frame().to(CUDA), torch.rand(36, 64, device=CUDA), Plain((1, 2, 3)), Timings())


@pytest.mark.parametrize("where", [CPU, CUDA])
@pytest.mark.parametrize("name", ["frame_to_input", "guided_filter", "steady_alpha", "is_cut"])
def test_whatever_of_a_look_fails_on_a_gpu_is_such_an_error(stub, monkeypatch, name, where):
    def failing(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    stream = stub().stream()
    monkeypatch.setattr(stream.matter.engine, "device", where)
    monkeypatch.setattr(matting if name == "is_cut" else ops, name, failing)
    expected = (RuntimeError, "out of memory") if where == CPU else (MatteError, r"on cuda:0 failed .*cpu")
    with pytest.raises(expected[0], match=expected[1]):
        list(matting.matte([frame(), frame()], stream))  # the first is neither a cut nor steadied


def test_the_frames_place_is_named():
    stream = Matter(device="cpu").stream()
    assert "frames on" not in stream.description
    stream.place = CUDA
    assert stream.description.endswith(", frames on cuda:0")


@needs_cuda
def test_cuda_gets_the_frames(caplog):
    assert place_beside(torch.device("cuda")) == torch.device("cuda")
    assert not caplog.records


@needs_cuda
@pytest.mark.parametrize("layout", ["yuv420p", "yuv422p10le", "yuv444p"])
@pytest.mark.parametrize("kind", [*BACKGROUNDS, "transparent"])
def test_cuda_composites_as_the_cpu(clip, kind, layout):
    here, alpha = frame(layout), matte((36, 64))
    behind = Transparent() if kind == "transparent" else background(kind, clip)
    expected = put_before(here, alpha, behind, Timings(), keep_alpha=True)
    found = put_before(here.to(CUDA), alpha.to(CUDA), behind, Timings(), keep_alpha=True)
    behind.close()
    assert_floats(found.alpha, expected.alpha, scale=ALPHA_SCALE)
    if kind == "transparent":
        sure = expected.alpha > COVERED
        assert_samples([found.planes[0][sure]], [expected.planes[0][sure]])
    else:
        assert_samples(found.planes, expected.planes)


@needs_cuda
@pytest.mark.parametrize("rotation", [0, 90])
def test_cuda_mattes_frame_after_frame_as_the_cpu(rotation):
    first = replace(frame(), rotation=rotation)
    shown = [first.with_planes([plane.roll(i, 1) for plane in first.planes]) for i in range(3)]
    found = []
    for device in ("cpu", "cuda"):
        stream = Matter(device=device, engine="torch", precision="float32").stream()
        items = (stream.matted(item) for item in shown)
        found.append(list(compose(items, Blur(), stream.timings)))
    for expected, done in zip(*found, strict=True):
        for one, other in zip(done.planes, expected.planes, strict=True):
            torch.testing.assert_close(one, other, atol=NETWORK_STEPS, rtol=0)

"""The operators inside the network and its loss: values, gradients, tracing."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import DEVICES, needs_cuda
from tolerances import assert_floats, assert_gradients
from torch import Tensor

from banet_stream import backends, ops
from banet_stream.network import BANet

# Image size, logits size: the network's quarter, odd, shrinking, one row, one pixel, 4K's width.
ATTENTION_SIZES = [
    ((32, 48), (8, 12)),
    ((33, 47), (8, 12)),
    ((8, 9), (16, 21)),
    ((1, 40), (1, 10)),
    ((40, 1), (10, 1)),
    ((1, 1), (1, 1)),
    ((8, 3840), (2, 960)),
]
IMAGE_SIZES = [(24, 31), (1, 1), (1, 9), (9, 1), (2, 2), (65, 33)]
CHANNELS_FIRST, CHANNELS_LAST = torch.contiguous_format, torch.channels_last


def noise(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(
        device, dtype
    )


def both(call: Callable[[], object]) -> tuple[object, object]:
    with backends.using("compiled"):
        actual = call()
    with backends.using("reference"):
        return actual, call()


def with_gradients(call: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> list[Tensor]:
    """Outputs, then the gradients of a fixed mixture of them."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = call(*leaves)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    mixture = sum((o * noise(*o.shape, dtype=o.dtype, seed=9).to(o.device)).sum() for o in outputs)
    assert isinstance(mixture, Tensor)
    return [*(o.detach() for o in outputs), *torch.autograd.grad(mixture, leaves)]


# --- boundary attention ----------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [CHANNELS_FIRST, CHANNELS_LAST], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("logits_dtype", "dtype"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.parametrize(("size", "small"), ATTENTION_SIZES)
def test_boundary_attention_equals_its_reference(
    size: tuple[int, int],
    small: tuple[int, int],
    logits_dtype: torch.dtype,
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: str,
) -> None:
    logits = 3 * noise(2, 1, *small, device=device, dtype=logits_dtype)
    image = noise(2, 3, *size, device=device, dtype=dtype, seed=1).contiguous(memory_format=layout)
    results = both(
        lambda: with_gradients(lambda a, b: ops.boundary_attention(a, b, temperature=4.0), logits, image)
    )
    (actual, to_logits, to_image), (expected, other_to_logits, other_to_image) = results
    assert actual.is_contiguous(memory_format=layout)  # the network's layout survives
    # The reference rounds 16-bit logits and their gradients at every step, the kernel once.
    assert_floats(actual[:, 3:].to(logits_dtype), expected[:, 3:].to(logits_dtype))
    assert torch.equal(actual[:, :3], image)
    assert_floats(to_logits, other_to_logits, scale=4)
    assert torch.equal(to_image, other_to_image)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("size", "small"), [((9, 11), (3, 2)), ((4, 4), (1, 1)), ((3, 5), (6, 7))])
def test_boundary_attention_gradcheck(size: tuple[int, int], small: tuple[int, int], device: str) -> None:
    logits = noise(2, 1, *small, dtype=torch.float64, device=device).requires_grad_()
    image = noise(2, 3, *size, dtype=torch.float64, device=device).requires_grad_()
    with backends.using("compiled"):
        torch.autograd.gradcheck(lambda a, b: ops.boundary_attention(a, b, temperature=2.0), (logits, image))


@pytest.mark.parametrize("device", DEVICES)
def test_boundary_attention_reads_any_strides(device: str) -> None:
    logits = noise(2, 4, 6, 16, device=device)[:, 1:2, :, ::2]
    image = noise(2, 24, 64, 3, device=device).permute(0, 3, 1, 2)[:, :, :, ::2]
    with backends.using("compiled"):
        out = ops.boundary_attention(logits, image, temperature=4.0)
        assert torch.equal(
            out, ops.boundary_attention(logits.contiguous(), image.contiguous(), temperature=4.0)
        )


def test_boundary_attention_frees_its_memory_without_a_backward() -> None:
    # A graph that holds a view of its own output is a circle: it stays until Python's collector comes by.
    logits, image = torch.randn(1, 1, 4, 4, requires_grad=True), torch.rand(1, 3, 16, 16)
    gc.collect()
    gc.disable()
    try:
        out = ops.boundary_attention(logits, image, temperature=4.0)
        memory, node = weakref.ref(out), weakref.ref(out.grad_fn)
        del out
        assert memory() is None
        assert node() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("device", DEVICES)
def test_boundary_attention_of_an_empty_batch(device: str) -> None:
    logits, image = noise(0, 1, 2, 2, device=device), noise(0, 3, 8, 8, device=device)
    out, expected = both(lambda: ops.boundary_attention(logits, image, temperature=4.0))
    assert out.shape == expected.shape


@pytest.mark.parametrize("device", DEVICES)
def test_boundary_attention_of_extreme_logits(device: str) -> None:
    logits = torch.tensor([3e38, -3e38, 1e30, -1e30, 700.0, -700.0], device=device).reshape(1, 1, 6, 1)
    image = torch.zeros(1, 3, 6, 1, device=device)
    out, expected = both(lambda: ops.boundary_attention(logits, image, temperature=1.0))
    assert_floats(out, expected)
    with backends.using("compiled"):
        nothing = ops.boundary_attention(logits * float("nan"), image, temperature=1.0)
    assert nothing[:, 3].isnan().all()  # NaN goes through: a loss must see it


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(size=st.tuples(*[st.integers(1, 40)] * 2), small=st.tuples(*[st.integers(1, 20)] * 2))
def test_boundary_attention_of_any_size(size: tuple[int, int], small: tuple[int, int], device: str) -> None:
    logits, image = noise(1, 1, *small, device=device), noise(1, 3, *size, device=device)
    results = both(
        lambda: with_gradients(lambda a, b: ops.boundary_attention(a, b, temperature=4.0), logits, image)
    )
    for actual, expected in zip(*results, strict=True):
        assert_floats(actual, expected, scale=4)


@needs_cuda
def test_boundary_attention_of_cupy_on_cuda_equals_its_reference() -> None:
    pytest.importorskip("cupy")
    logits, image = noise(2, 1, 8, 12, device="cuda"), noise(2, 3, 33, 47, device="cuda", seed=1)
    results = []
    for backend in ("cupy", "reference"):
        with backends.using(backend):
            results.append(
                with_gradients(lambda a, b: ops.boundary_attention(a, b, temperature=4.0), logits, image)
            )
    for actual, expected in zip(*results, strict=True):
        assert_floats(actual, expected, scale=4)


# --- gradients and their loss ------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_sobel_gradient_equals_its_reference(
    size: tuple[int, int], channels: int, dtype: torch.dtype, device: str
) -> None:
    image = noise(2, channels, *size, dtype=dtype, device=device)
    actual, expected = both(lambda: with_gradients(ops.sobel_gradient, image))
    assert_floats(actual[0], expected[0])
    # A direction is as exact as its magnitude is large.
    assert_floats(actual[1] * actual[0], expected[1] * expected[0])
    assert_gradients(actual[2], expected[2])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(5, 6), (1, 4), (3, 1)])
def test_sobel_gradient_gradcheck(size: tuple[int, int], channels: int, device: str) -> None:
    image = noise(2, channels, *size, dtype=torch.float64, device=device).requires_grad_()
    with backends.using("compiled"):
        torch.autograd.gradcheck(ops.sobel_gradient, (image,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("value", [0.0, 0.3, float("nan"), float("inf")])
def test_flat_and_broken_images_have_no_gradient(value: float, backend: str, device: str) -> None:
    image = torch.full((1, 3, 8, 8), value, device=device)
    if not math.isfinite(value):
        image[..., :4] = 0
    with backends.using(backend):
        magnitude, direction = ops.sobel_gradient(image)
        assert magnitude.count_nonzero() == direction.count_nonzero() == 0
        assert with_gradients(ops.sobel_gradient, image)[2].count_nonzero() == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 20, 31, 32, 69])  # first, middle and last, of all and of a block of 32
def test_one_broken_pixel_leaves_its_image_no_gradient(
    row: int, value: float, backend: str, device: str
) -> None:
    image = noise(2, 3, 70, 9, device=device)
    image[0, 1, row, 4] = value
    with backends.using(backend):
        magnitude, direction = ops.sobel_gradient(image)
    assert magnitude[0].count_nonzero() == direction[0].count_nonzero() == 0
    assert magnitude[1].count_nonzero() > 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("row", [0, 20, 31, 32, 69])
def test_one_broken_pixel_is_a_flat_image_to_the_refine_loss(row: int, device: str) -> None:
    image, prediction = noise(1, 3, 70, 9, device=device), noise(1, 1, 70, 9, device=device, seed=1)
    mask, broken = torch.ones_like(prediction), image.clone()
    broken[0, 1, row, 4] = float("nan")
    with backends.using("compiled"):
        run = [
            with_gradients(lambda a, b: ops.refine_loss(a, b, mask), picture, prediction)
            for picture in (broken, torch.zeros_like(image))
        ]
    assert all(map(torch.equal, *run))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_flat_parts_of_an_image_pass_no_gradient_back(backend: str, device: str) -> None:
    image = torch.zeros(1, 1, 8, 16, device=device)
    image[..., 12:] = 1
    image[..., 2, 3] = 0.5
    with backends.using(backend):
        magnitude, _, back = with_gradients(ops.sobel_gradient, image)
    assert magnitude[..., 6:10].count_nonzero() == 0
    assert back.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_refine_loss_equals_its_reference(
    size: tuple[int, int], channels: int, dtype: torch.dtype, device: str
) -> None:
    image, prediction = (
        noise(2, channels, *size, dtype=dtype, device=device),
        noise(2, 1, *size, dtype=dtype, seed=1),
    )
    prediction = prediction.to(device).sigmoid()
    mask = (noise(2, 1, *size, dtype=dtype, device=device, seed=2) > 0).to(dtype)
    results = both(lambda: with_gradients(lambda a, b: ops.refine_loss(a, b, mask), image, prediction))
    for actual, expected in zip(*results, strict=True):
        assert_gradients(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_refine_loss_gradcheck(device: str) -> None:
    image = noise(2, 3, 5, 6, dtype=torch.float64, device=device).requires_grad_()
    prediction = noise(2, 1, 5, 6, dtype=torch.float64, device=device, seed=1).sigmoid().requires_grad_()
    mask = (noise(2, 1, 5, 6, dtype=torch.float64, device=device, seed=2) > -0.5).double()
    with backends.using("compiled"):
        torch.autograd.gradcheck(lambda a, b: ops.refine_loss(a, b, mask, balance=1.2), (image, prediction))


@pytest.mark.parametrize("device", DEVICES)
def test_refine_loss_of_an_empty_boundary_or_batch_is_zero(device: str) -> None:
    image, prediction = noise(1, 3, 6, 6, device=device), noise(1, 1, 6, 6, device=device)
    for count in (0, 1):
        inputs = image[:count], prediction[:count], torch.zeros_like(prediction[:count])
        results = both(lambda i=inputs: ops.refine_loss(*i))
        assert [r.item() for r in results] == [0, 0]


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_refine_loss_of_any_size(height: int, width: int, seed: int, device: str) -> None:
    image = noise(1, 3, height, width, dtype=torch.float64, seed=seed, device=device)
    prediction = noise(1, 1, height, width, dtype=torch.float64, seed=seed + 1, device=device)
    mask = torch.ones_like(prediction)
    results = both(lambda: with_gradients(lambda a, b: ops.refine_loss(a, b, mask), image, prediction))
    for actual, expected in zip(*results, strict=True):
        assert_gradients(actual, expected)


def test_gradients_give_the_same_bits_with_any_number_of_threads() -> None:
    image, prediction = noise(2, 3, 130, 70), noise(2, 1, 130, 70, seed=1).sigmoid()
    mask = torch.ones_like(prediction)
    logits, threads = noise(2, 1, 33, 18, seed=2), torch.get_num_threads()

    def run() -> list[Tensor]:
        return [
            *with_gradients(lambda a, b: ops.refine_loss(a, b, mask), image, prediction),
            *with_gradients(lambda a, b: ops.boundary_attention(a, b, temperature=4.0), logits, image),
        ]

    with backends.using("compiled"):
        first = run()
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert all(map(torch.equal, run(), first))
        finally:
            torch.set_num_threads(threads)


# --- tracing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    operators = torch.ops.banet_stream
    image = noise(2, 3, 8, 12, device=device).requires_grad_()
    single = noise(2, 1, 8, 12, device=device, seed=1).requires_grad_()
    logits = noise(2, 1, 2, 3, device=device).requires_grad_()
    last = image.detach().contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    torch.library.opcheck(operators.boundary_attention, (logits, image, 4.0, False))
    torch.library.opcheck(operators.boundary_attention, (logits, last, 4.0, True))
    back = (single.detach(), single.detach(), 2, 3, torch.float32, 4.0)
    torch.library.opcheck(operators.boundary_attention_backward, back)
    torch.library.opcheck(operators.sobel_gradient, (image,))
    mask = torch.ones_like(single.detach())
    torch.library.opcheck(operators.refine_loss, (image, single, mask, 1.5, 0.5, 0.5))


def test_the_network_exports_with_its_operator() -> None:
    network = BANet().eval()
    image = noise(1, 3, 64, 64)
    with backends.using("compiled"), torch.no_grad():
        program = torch.export.export(network, (image,))
        assert any("boundary_attention" in str(node.target) for node in program.graph.nodes)
        assert_floats(program.module()(image)[0], network(image).alpha, scale=10)
    with backends.using("reference"):  # what a graph runtime without our operators is given
        plain = torch.export.export(network, (image,))
    assert not any("banet_stream" in str(node.target) for node in plain.graph.nodes)


def test_torch_compile_keeps_the_operator_in_one_graph() -> None:
    logits, image = noise(1, 1, 4, 4), noise(1, 3, 16, 16)
    with backends.using("compiled"):
        compiled = torch.compile(
            lambda a, b: ops.boundary_attention(a, b * 2, temperature=4.0),
            backend="aot_eager",
            fullgraph=True,
        )
        actual = with_gradients(compiled, logits, image)
        expected = with_gradients(
            lambda a, b: ops.boundary_attention(a, b * 2, temperature=4.0), logits, image
        )
    for got, wanted in zip(actual, expected, strict=True):
        assert_floats(got, wanted)

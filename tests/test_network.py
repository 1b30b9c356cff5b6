from __future__ import annotations

import pytest
import torch

from banet_stream.engines import TorchEngine, fold_batch_norm
from banet_stream.network import BANet, ContextBlock


def parameters(network: BANet) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("channels", "millions"), [(64, 0.62), (512, 12.75)])
def test_parameters_are_the_papers(channels: int, millions: float) -> None:
    counts = {parameters(BANet(channels, detail_stride=stride)) for stride in (1, 2, 4)}
    assert len(counts) == 1  # the stride changes none
    assert counts.pop() / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("stride", "context"), [(1, 0), (2, 0), (4, 0), (4, 2)])
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 96), (100, 31)])
def test_any_size_and_batch(stride: int, context: int, size: tuple[int, int]) -> None:
    network = BANet(detail_stride=stride, context=context).eval()
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        output = network(image)
        alone = network(image[1:])
    assert output.alpha.shape == output.boundary.shape == (2, 1, *size)
    assert output.boundary.min() >= 0
    assert output.boundary.max() <= 1
    torch.testing.assert_close(output.alpha[1:], alone.alpha, rtol=1e-4, atol=1e-4)


def test_attention_is_softened_by_the_temperature() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    sharp, soft = BANet(temperature=1.0).eval(), BANet(temperature=8.0).eval()
    soft.load_state_dict(sharp.state_dict())
    with torch.no_grad():
        one, eight = sharp(image).boundary, soft(image).boundary
    torch.testing.assert_close(torch.logit(eight), torch.logit(one) / 8, rtol=1e-3, atol=1e-3)


def test_the_detail_branch_sees_the_attention_map() -> None:
    torch.manual_seed(0)
    network = BANet().eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(image).alpha
        network.detail[0].weight[:, 3] += 1.0  # the fourth channel's taps
        after = network(image).alpha
    assert not torch.allclose(before, after)


def test_context_blocks_begin_as_the_identity() -> None:
    plain, network = BANet().eval(), BANet(context=2).eval()
    network.load_state_dict(network.state_dict() | plain.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network(image).alpha, plain(image).alpha)


def test_context_blocks_see_far() -> None:
    torch.manual_seed(0)
    network = BANet(context=1).eval().double()
    before = reach(network)
    for block in context_blocks(network):
        torch.nn.init.ones_(block.residual[-1].weight)
    assert reach(network) >= before + 4 * 32 + 4 * 16  # half a kernel at 1/32, and at 1/16


def reach(network: BANet) -> int:
    """To which column, in pixels, the semantic branch hears of the first one."""
    image = torch.randn(1, 3, 64, 1024, dtype=torch.float64)
    other = image.clone()
    other[..., 0] += 1.0
    with torch.no_grad():
        differs = network(image).boundary_logits != network(other).boundary_logits
    return 4 * int(differs.any(dim=2).nonzero()[-1, -1])


def context_blocks(network: BANet) -> list[ContextBlock]:
    return [module for module in network.modules() if isinstance(module, ContextBlock)]


def test_every_parameter_learns() -> None:
    network = BANet(channels=128, context=1)
    for block in context_blocks(network):
        torch.nn.init.ones_(block.residual[-1].weight)  # at zero, where it begins, nothing behind it learns
    output = network(torch.randn(2, 3, 64, 64))
    (output.alpha.mean() + output.boundary_logits.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 60}, "channels must be"),
        ({"detail_stride": 3}, "detail_stride must be 1, 2 or 4, got 3"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"context": -1}, "context must be 0 or more, got -1"),
    ],
)
def test_refused_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BANet(**arguments)


def test_folding_batch_norm_changes_nothing() -> None:
    torch.manual_seed(0)
    network = BANet(context=1)
    for module in network.modules():  # statistics as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    network.eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = network(image).alpha
        after = fold_batch_norm(network)(image).alpha
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_close_to_float32(matter_pair: tuple[TorchEngine, TorchEngine]) -> None:
    exact, short = matter_pair
    image = torch.randn(1, 3, 96, 96)
    assert (exact(image) - short(image)).abs().mean() < 0.02


@pytest.fixture
def matter_pair() -> tuple[TorchEngine, TorchEngine]:
    from banet_stream.engines import load_network

    cpu = torch.device("cpu")
    return (
        TorchEngine(load_network("banet64"), cpu, "float32"),
        TorchEngine(load_network("banet64"), cpu, "bfloat16"),
    )

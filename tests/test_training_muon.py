"""The optimiser: against PyTorch's own for matrices, Adam, and the singular values themselves."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("cv2")  # training's extra
import torch
from torch import nn

from training import muon, train
from training.muon import Muon


def groups(parameters, weight_decay=0.0):
    return [{"params": list(parameters), "weight_decay": weight_decay}]


def give_gradients(models, seed):
    """The same random gradients to each model."""
    torch.manual_seed(seed)
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        gradient = torch.randn(parameters[0].shape)
        for parameter in parameters:
            parameter.grad = gradient.reshape(parameter.shape).clone()


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24), (2, 24, 32)])
def test_singular_vectors_stay_and_values_come_near_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None, None]
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    seen = u.mT @ muon.orthogonalised(matrices) @ v.mT
    values = torch.diagonal(seen, dim1=1, dim2=2)
    assert 0.5 < values.min() <= values.max() < 1.3
    assert (seen - torch.diag_embed(values)).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(2, 16, 144), (3, 8, 8), (1, 24, 40)])
def test_through_the_gram_matrix_as_directly(shape):
    """With and without singular values that are next to nothing."""
    torch.manual_seed(0)
    for matrices in (torch.randn(shape), torch.randn(*shape[:2], 2) @ torch.randn(shape[0], 2, shape[2])):
        x = matrices / matrices.flatten(1).norm(dim=1)[:, None, None]
        torch.testing.assert_close(muon.stretched_by_gram(x), muon.stretched(x), rtol=0, atol=1e-3)
        exact = muon.stretched(x.double())
        torch.testing.assert_close(muon.stretched_by_gram(x.double()), exact, rtol=0, atol=1e-9)


def test_nothing_to_step_along_is_no_step():
    layer = nn.Linear(16, 16)
    before = copy.deepcopy(layer)
    layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), None
    Muon(groups(layer.parameters()), 0.1).step()
    assert torch.equal(layer.weight, before.weight)
    assert torch.equal(layer.bias, before.bias)


@pytest.mark.parametrize("size", [(48, 16), (16, 48)])
def test_matrices_step_as_in_pytorch(size):
    """torch.optim.Muon takes its steps in bfloat16: equal to its precision, over several steps."""
    ours = nn.Linear(*size, bias=False)
    theirs = copy.deepcopy(ours)
    start = ours.weight.detach().clone()
    one = Muon(groups(ours.parameters(), 0.05), 0.02)
    other = torch.optim.Muon(
        theirs.parameters(), lr=0.02, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(4):
        give_gradients((ours, theirs), seed)
        one.step()
        other.step()
    moved, expected = ours.weight.detach() - start, theirs.weight.detach() - start
    assert float((moved - expected).norm() / expected.norm()) < 0.02


def test_biases_norms_and_small_kernels_step_as_with_adam():
    ours = nn.Sequential(nn.Conv2d(32, 1, 1), nn.BatchNorm2d(12))
    theirs = copy.deepcopy(ours)
    one, other = Muon(groups(ours.parameters()), 0.02), torch.optim.Adam(theirs.parameters(), lr=0.02)
    for seed in range(4):
        give_gradients((ours, theirs), seed)
        one.step()
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_kernels_are_matrices_and_do_not_see_each_other():
    """A convolution's step is that of the matrix it is, whether or not another of its shape is beside it."""
    conv, linear = nn.Conv2d(8, 16, 3, bias=False), nn.Linear(72, 16, bias=False)
    linear.weight.data = conv.weight.data.flatten(1).clone()
    pair = nn.ModuleList([copy.deepcopy(conv), nn.Conv2d(8, 16, 3, bias=False)])
    give_gradients((conv, linear), 1)
    give_gradients((pair,), 1)
    for model in (conv, linear, pair):
        Muon(groups(model.parameters()), 0.1).step()
    torch.testing.assert_close(conv.weight.flatten(1), linear.weight)
    torch.testing.assert_close(conv.weight, pair[0].weight)


def test_weight_decay_is_the_groups_own():
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    before = copy.deepcopy(model)
    for layer in model:
        layer.weight.grad = torch.zeros_like(layer.weight)
    parts = groups(model[0].parameters(), 0.5) + groups(model[1].parameters())
    Muon(parts, 0.1).step()
    torch.testing.assert_close(model[0].weight, 0.95 * before[0].weight)
    assert torch.equal(model[1].weight, before[1].weight)


def test_saved_state_goes_on_to_the_bit():
    whole = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    cut = copy.deepcopy(whole)
    one, other = Muon(groups(whole.parameters()), 0.1), Muon(groups(cut.parameters()), 0.1)
    for seed in range(2):
        give_gradients((whole, cut), seed)
        one.step()
        other.step()
    saved = copy.deepcopy(other.state_dict())
    other = Muon(groups(cut.parameters()), 0.1)
    other.load_state_dict(saved)
    give_gradients((whole, cut), 7)
    one.step()
    other.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_training_takes_it_by_name_and_by_default():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    config = train.parse([])
    optimiser = train.build_optimiser(model, config)
    assert (config.optimiser, type(optimiser)) == ("muon", Muon)
    sizes = [(len(group["params"]), group["matrices"]) for group in optimiser.param_groups]
    assert sizes == [(1, True), (3, False)]
    assert [group["weight_decay"] for group in optimiser.param_groups] == [config.weight_decay, 0.0]

"""Muon: momentum whose steps have every singular value near one.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. ``torch.optim.Muon`` takes matrices
only, one after the other; here convolution kernels are matrices too [outputs, inputs * rows * columns], and
those of one shape are worked on together. What is no large matrix is left to Adam (Kingma and Ba 2015).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# The iteration p(x) = A x + B x^3 + C x^5 moves every singular value of 0..1 to about 0.7 to 1.2.
ITERATIONS = 5
A, B, C = 3.4445, -4.7750, 2.0315
# Matrices with a shorter side than this have too few singular values to be worth it.
SMALLEST_SIDE = 8
# The root mean square of a step in units of the rate: what is usual with AdamW, so that its rates fit.
STEP_SIZE = 0.2
# From this many times as long as high a matrix is cheaper to work on through its Gram matrix.
LONG = 2
MOMENTUM, SQUARES, EPSILON = 0.95, 0.999, 1e-8


class Muon(torch.optim.Optimizer):
    """Muon for large kernels, Adam for everything else, under one rate.

    Args:
        groups: of parameters, each with its ``weight_decay`` (decoupled, as AdamW's).
        lr: the rate.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        # Of betas only the first is cycled with the rate, and only Adam uses it.
        defaults = {"lr": lr, "betas": (0.9, SQUARES), "weight_decay": 0.0}
        super().__init__([part for group in groups for part in split(group)], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step down the gradients."""
        del closure
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            (self.step_matrices if group["matrices"] else self.step_others)(parameters, group)

    def step_matrices(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for kernel in kernels:
            state = self.state[kernel]
            if not state:
                state["mean"] = torch.zeros_like(kernel)
            mean = state["mean"].lerp_(kernel.grad, 1 - MOMENTUM)
            direction = kernel.grad.lerp(mean, MOMENTUM).flatten(1)  # type: ignore[union-attr]  # Nesterov's
            alike.setdefault(direction.shape, []).append((kernel, direction))
        for shape, found in alike.items():
            steps = orthogonalised(torch.stack([direction for _, direction in found]))
            length = STEP_SIZE * max(shape) ** 0.5
            for (kernel, _), step in zip(found, steps, strict=True):
                kernel.sub_(step.reshape(kernel.shape), alpha=group["lr"] * length)

    def step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum, gradients = group["betas"][0], [p.grad for p in parameters if p.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state.update(steps=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["steps"] += 1
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - SQUARES)
        scales = torch._foreach_div(squares, [1 - SQUARES ** state["steps"] for state in states])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, EPSILON)
        rates = [-group["lr"] / (1 - momentum ** state["steps"]) for state in states]
        torch._foreach_addcdiv_(parameters, means, scales, rates)


def split(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group's large kernels, and the rest of it."""
    large = [p for p in group["params"] if p.ndim > 1 and min(p.flatten(1).shape) >= SMALLEST_SIDE]
    chosen = {id(p) for p in large}
    others = [p for p in group["params"] if id(p) not in chosen]
    parts = [(large, True), (others, False)]
    return [group | {"params": params, "matrices": matrices} for params, matrices in parts if params]


def orthogonalised(matrices: Tensor) -> Tensor:
    """[n, r, c] -> each with its singular vectors, and singular values near one (Newton-Schulz)."""
    upright = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if upright else matrices
    x = x / x.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-7)
    long = x.shape[2] >= LONG * x.shape[1]
    x = stretched_by_gram(x) if long else stretched(x)
    return x.mT if upright else x


def stretched(x: Tensor) -> Tensor:
    """The iteration as it is written: x becomes A x + B (x x') x + C (x x')^2 x."""
    for _ in range(ITERATIONS):
        s = x @ x.mT
        x = A * x + (B * s + C * (s @ s)) @ x
    return x


def stretched_by_gram(x: Tensor) -> Tensor:
    """The same for x much longer than high: every step multiplies x by a polynomial of x x', so they are
    gathered at that small size, and x itself is touched twice."""
    s = x @ x.mT
    identity = torch.eye(s.shape[1], dtype=s.dtype, device=s.device)
    product = step = A * identity + B * s + C * (s @ s)
    for _ in range(ITERATIONS - 1):
        s = step @ s @ step
        step = A * identity + B * s + C * (s @ s)
        product = step @ product
    return product @ x

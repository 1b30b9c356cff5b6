"""A wider BANet that begins as a narrower, trained one: what is learnt need not be learnt again.

As in Net2Net (Chen, Goodfellow, Shlens 2016, https://arxiv.org/abs/1511.05641), but the new channels are not
copies of the old ones: they begin untrained, and nothing hears them yet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from banet_stream.network import BANet


def adopt(learnt: nn.Module, model: nn.Module) -> None:
    """Gives ``model`` what a network like it, or a narrower BANet, has learnt.

    Raises:
        RuntimeError: when ``learnt`` is another network.
    """
    if isinstance(learnt, BANet) and isinstance(model, BANet) and learnt.channels < model.channels:
        widen(learnt, model)
    else:
        model.load_state_dict(learnt.state_dict())


@torch.no_grad()
def widen(narrow: BANet, wide: BANet) -> None:
    """Gives ``wide``, as it is initialised, what ``narrow`` has learnt; it then computes the same (up to the
    rounding of longer sums), and in evaluation too, as no new channel reaches an old one.

    Shapes: ``wide`` has at least as many channels as ``narrow``.
    """
    learnt = narrow.state_dict()
    for name, values in wide.state_dict().items():  # they share their memory with ``wide``
        overwrite_corner(values, learnt[name])


def overwrite_corner(values: Tensor, learnt: Tensor) -> None:
    """[O, I, rows, columns], [O] or [] with the first of its outputs as they were learnt."""
    if values.ndim == 0:  # batch norm's count
        values.copy_(learnt)
        return
    outputs = len(learnt)
    if values.ndim > 1:
        values[:outputs, learnt.shape[1] :] = 0
        values[:outputs, : learnt.shape[1]] = learnt
    else:
        values[:outputs] = learnt

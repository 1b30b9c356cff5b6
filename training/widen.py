"""A larger BANet that begins as a smaller, trained one: what is learnt need not be learnt again.

As in Net2Net (Chen, Goodfellow, Shlens 2016, https://arxiv.org/abs/1511.05641), but the new channels are not
copies of the old ones: they begin untrained, and nothing hears them yet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from banet_stream.network import BANet


def adopt(learnt: nn.Module, model: nn.Module) -> None:
    """Gives ``model`` what a network like it has learnt, or a BANet with fewer channels or context blocks.

    Raises:
        RuntimeError: when ``learnt`` is another network.
    """
    if isinstance(learnt, BANet) and isinstance(model, BANet) and fits(learnt, model):
        widen(learnt, model)
    else:
        model.load_state_dict(learnt.state_dict())


def fits(small: BANet, large: BANet) -> bool:
    return small.channels <= large.channels and small.context <= large.context


@torch.no_grad()
def widen(narrow: BANet, wide: BANet) -> None:
    """Gives ``wide``, as it is initialised, what ``narrow`` has learnt; it then computes the same (up to the
    rounding of longer sums), and in evaluation too, as no new channel reaches an old one, and context blocks
    begin as the identity.

    Shapes: ``wide`` has at least as many channels and context blocks as ``narrow``.
    """
    begun = wide.state_dict()  # shares its memory with ``wide``
    for name, learnt in narrow.state_dict().items():
        overwrite_corner(begun[name], learnt)


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

"""Every network that can be trained, by name: BANet, BANet without attention, the paper's baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from banet_stream.network import BANet

from .baselines.bisenet import BiSeNet
from .baselines.edanet import EDANet
from .baselines.enet import ENet
from .baselines.pfcn import PFCN
from .baselines.plain_banet import PlainBANet
from .baselines.unet import UNet


def banet(config: Mapping[str, Any]) -> BANet:
    return BANet(
        config["channels"],
        detail_stride=config["detail_stride"],
        temperature=config["temperature"],
        context=config["context"],
    )


def plain_banet(config: Mapping[str, Any]) -> PlainBANet:
    return PlainBANet(config["channels"], detail_stride=config["detail_stride"])


BUILDERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "banet": banet,
    "banet-plain": plain_banet,
    "enet": lambda _: ENet(),
    "bisenet": lambda _: BiSeNet(),
    "edanet": lambda _: EDANet(),
    "unet": lambda _: UNet(),
    "pfcn": lambda _: PFCN(),
}
NAMES = tuple(BUILDERS)


def build(config: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a configuration.

    Raises:
        ValueError: naming the value that makes no network.
    """
    return BUILDERS[config["network"]](config)


def check(config: Mapping[str, Any]) -> None:
    """As ``build``, without its memory and time."""
    with torch.device("meta"):
        build(config)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())

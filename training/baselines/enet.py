"""ENet (Paszke et al. 2016), as its tables 1 and figure 2 give it, with one output channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .common import Baseline

# Bottlenecks are a quarter as wide inside.
REDUCTION = 4
# Stages 2 and 3: what the middle convolution of each bottleneck is.
PATTERN = ("plain", "dilated 2", "asymmetric", "dilated 4", "plain", "dilated 8", "asymmetric", "dilated 16")


class ENet(Baseline):
    def __init__(self) -> None:
        super().__init__()
        self.initial = Initial()
        self.down1 = Down(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, "plain", dropout=0.01) for _ in range(4)))
        self.down2 = Down(64, 128, dropout=0.1)
        self.stages23 = nn.Sequential(*(Bottleneck(128, kind, dropout=0.1) for kind in PATTERN * 2))
        self.up4 = Up(128, 64)
        self.stage4 = nn.Sequential(*(Bottleneck(64, "plain", dropout=0.1, decoder=True) for _ in range(2)))
        self.up5 = Up(64, 16)
        self.stage5 = Bottleneck(16, "plain", dropout=0.1, decoder=True)
        self.head = nn.ConvTranspose2d(16, 1, 2, stride=2)

    def logits(self, image: Tensor) -> Tensor:  # -> [N, 1, H, W]
        x = self.initial(image)  # [N, 16, H/2, W/2]
        x, indices1 = self.down1(x)  # [N, 64, H/4, W/4]
        x, indices2 = self.down2(self.stage1(x))  # [N, 128, H/8, W/8]
        x = self.stage4(self.up4(self.stages23(x), indices2))
        x = self.stage5(self.up5(x, indices1))
        found: Tensor = self.head(x)
        return found


class Initial(nn.Module):
    """[N, 3, H, W] -> [N, 16, H/2, W/2]: 13 convolved channels and the pooled picture."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 13, 3, 2, 1, bias=False)
        self.after = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU(16))

    def forward(self, image: Tensor) -> Tensor:
        both: Tensor = self.after(torch.cat([self.convolution(image), F.max_pool2d(image, 2)], 1))
        return both


def activation(channels: int, *, decoder: bool) -> nn.Module:
    return nn.ReLU() if decoder else nn.PReLU(channels)


def middle(channels: int, kind: str) -> nn.Module:
    if kind == "asymmetric":
        return nn.Sequential(
            nn.Conv2d(channels, channels, (5, 1), padding=(2, 0), bias=False),
            nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), bias=False),
        )
    dilation = int(kind.removeprefix("dilated ")) if kind != "plain" else 1
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)


def residual(
    inputs: int, outputs: int, first: nn.Module, second: nn.Module, *, dropout: float, decoder: bool
) -> nn.Sequential:
    """Projection, convolution, expansion, each with batch norm; dropout of whole channels at the end."""
    inner = inputs // REDUCTION
    return nn.Sequential(
        nn.Sequential(first, nn.BatchNorm2d(inner), activation(inner, decoder=decoder)),
        nn.Sequential(second, nn.BatchNorm2d(inner), activation(inner, decoder=decoder)),
        nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        nn.Dropout2d(dropout),
    )


class Bottleneck(nn.Module):
    def __init__(self, channels: int, kind: str, *, dropout: float, decoder: bool = False) -> None:
        super().__init__()
        inner = channels // REDUCTION
        first = nn.Conv2d(channels, inner, 1, bias=False)
        self.residual = residual(
            channels, channels, first, middle(inner, kind), dropout=dropout, decoder=decoder
        )
        self.after = activation(channels, decoder=decoder)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.after(x + self.residual(x))
        return added


class Down(nn.Module):
    """Half the size; the pooled input, filled up with empty channels, is the shortcut."""

    def __init__(self, inputs: int, outputs: int, *, dropout: float) -> None:
        super().__init__()
        inner = inputs // REDUCTION
        first = nn.Conv2d(inputs, inner, 2, stride=2, bias=False)
        self.residual = residual(
            inputs, outputs, first, middle(inner, "plain"), dropout=dropout, decoder=False
        )
        self.after = nn.PReLU(outputs)
        self.missing = outputs - inputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        shortcut = F.pad(pooled, (0, 0, 0, 0, 0, self.missing))
        return self.after(shortcut + self.residual(x)), indices


class Up(nn.Module):
    """Twice the size; the shortcut puts values where the pooling of the same size took them from."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs // REDUCTION
        first = nn.Conv2d(inputs, inner, 1, bias=False)
        second = nn.ConvTranspose2d(inner, inner, 3, 2, 1, output_padding=1, bias=False)
        self.residual = residual(inputs, outputs, first, second, dropout=0.1, decoder=True)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        shortcut = F.max_unpool2d(self.shortcut(x), indices, (2, 2))
        return F.relu(shortcut + self.residual(x))

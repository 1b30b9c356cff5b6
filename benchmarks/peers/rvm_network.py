"""A network of RobustVideoMatting's shape and cost, written from its paper, with random weights.

rvm_network.py OUT.onnx

Lin et al. 2021, "Robust High-Resolution Video Matting with Temporal Guidance", section 3: MobileNetV3-Large
(Howard et al. 2019, table 1) with its last stage dilated, LR-ASPP, and a decoder of upsampling blocks, half
of each passing through a ConvGRU, at 1/16, 1/8, 1/4 and 1/2; 3.75 M parameters, as there. Its own weights
can't be had here, so it says how fast such a network is, and nothing about how good. Its guided filter is
left out.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEIGHT, WIDTH = 288, 512
# Kernel, expanded and output channels, squeeze-and-excite, hard swish, stride, dilation.
BLOCKS = (
    (3, 16, 16, False, False, 1, 1),
    (3, 64, 24, False, False, 2, 1),
    (3, 72, 24, False, False, 1, 1),
    (5, 72, 40, True, False, 2, 1),
    (5, 120, 40, True, False, 1, 1),
    (5, 120, 40, True, False, 1, 1),
    (3, 240, 80, False, True, 2, 1),
    (3, 200, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 480, 112, True, True, 1, 1),
    (3, 672, 112, True, True, 1, 1),
    (5, 672, 160, True, True, 1, 2),
    (5, 960, 160, True, True, 1, 2),
    (5, 960, 160, True, True, 1, 2),
)
# After these blocks a level (1/2, 1/4, 1/8) is complete; its channels.
LEVELS = {0: 16, 2: 24, 5: 40}
DEEPEST, POOLED = 960, 128
DECODED = (80, 40, 32)  # channels at 1/8, 1/4, 1/2
LAST = 16


def conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> list[nn.Module]:
    padding = (kernel - 1) // 2 * dilation
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole picture holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(8, (channels // 4 + 4) // 8 * 8)
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inside, 1),
            nn.ReLU(),
            nn.Conv2d(inside, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x)


class InvertedResidual(nn.Module):
    """MobileNetV3's block: widen, filter each channel by itself, narrow."""

    def __init__(
        self, inputs: int, kernel: int, inside: int, outputs: int, squeeze: bool, swish: bool, *steps: int
    ) -> None:
        super().__init__()
        stride, dilation = steps
        activation = nn.Hardswish if swish else nn.ReLU
        layers = [*conv(inputs, inside, 1), activation()] if inside != inputs else []
        layers += conv(inside, inside, kernel, stride=stride, groups=inside, dilation=dilation)
        layers += [activation(), *([SqueezeExcite(inside)] if squeeze else []), *conv(inside, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.same else y


class ConvGRU(nn.Module):
    """Over half of the channels; the rest passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.gates = nn.Conv2d(2 * half, 2 * half, 3, padding=1)
        self.candidate = nn.Conv2d(2 * half, half, 3, padding=1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        passed, seen = x.chunk(2, 1)
        reset, update = torch.sigmoid(self.gates(torch.cat([seen, state], 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat([seen, reset * state], 1)))
        state = (1 - update) * state + update * candidate
        return torch.cat([passed, state], 1), state


class RVMShaped(nn.Module):
    """Image [N, 3, h, w] and four states -> foreground [N, 3, h, w], alpha [N, 1, h, w], the next states."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv(3, 16, 3, stride=2), nn.Hardswish())
        inputs, blocks = 16, []
        for kernel, inside, outputs, *rest in BLOCKS:
            blocks.append(InvertedResidual(inputs, kernel, inside, outputs, *rest))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.deepest = nn.Sequential(*conv(inputs, DEEPEST, 1), nn.Hardswish())
        self.pooled = nn.Sequential(*conv(DEEPEST, POOLED, 1), nn.ReLU())
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(DEEPEST, POOLED, 1, bias=False), nn.Sigmoid()
        )
        wide = [POOLED, *DECODED]
        skips = [*reversed(LEVELS.values())]
        self.recurrent = nn.ModuleList(ConvGRU(channels) for channels in wide)
        self.up = nn.ModuleList(
            nn.Sequential(*conv(below + skip + 3, outputs, 3), nn.ReLU())
            for below, skip, outputs in zip(wide, skips, DECODED, strict=False)
        )
        self.last = nn.Sequential(
            *conv(DECODED[-1] + 3, LAST, 3), nn.ReLU(), *conv(LAST, LAST, 3), nn.ReLU(), nn.Conv2d(LAST, 4, 1)
        )

    def forward(self, image: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        x, levels = self.stem(image), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in LEVELS:
                levels.append(x)
        x = self.deepest(x)
        x = self.pooled(x) * self.weights(x)
        x, state = self.recurrent[0](x, states[0])
        after = [state]
        for up, recurrent, before in zip(self.up, self.recurrent[1:], states[1:], strict=True):
            x, state = recurrent(up(beside(x, levels.pop(), image)), before)
            after.append(state)
        made = self.last(beside(x, image))
        return (made[:, :3] + image).clamp(0, 1), made[:, 3:].clamp(0, 1), *after


def beside(x: Tensor, *others: Tensor) -> Tensor:
    """``x`` enlarged twice, and the others, shrunk to it where they are larger."""
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    shrunk = [F.avg_pool2d(o, o.shape[-1] // x.shape[-1]) for o in others]
    return torch.cat([x, *shrunk], 1)


def first_states(height: int = HEIGHT, width: int = WIDTH) -> list[Tensor]:
    channels, strides = (POOLED, *DECODED), (16, 8, 4, 2)
    return [torch.zeros(1, c // 2, height // s, width // s) for c, s in zip(channels, strides, strict=True)]


def export(path: str) -> None:
    torch.manual_seed(0)
    network, states = RVMShaped().eval(), first_states()
    inputs = ["image", *(f"state{i}" for i in range(len(states)))]
    outputs = ["foreground", "alpha", *(f"next{i}" for i in range(len(states)))]
    torch.onnx.export(
        network, (torch.zeros(1, 3, HEIGHT, WIDTH), *states), path, input_names=inputs,
        output_names=outputs, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    export(sys.argv[1])

"""What the operators refuse, and in which words: argument, rule, value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from operator_inputs import frame, matte

from banet_stream import ops

FRAME, ALPHA = frame((24, 32)), matte((8, 16))
BYTE, SHORT = torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.int16)
IMAGE = torch.zeros(1, 3, 8, 8)
FAR = ALPHA.to("meta")  # on another device, on any machine
COLOUR = {"size": (8, 8), "matrix": "bt709", "full_range": False}

REFUSALS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: ops.composite(FRAME[:2], ALPHA, FRAME),
        "composite: planes must hold 3 planes, got 2",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, frame((24, 34))),
        "composite: background must have the frame's plane shapes [[24, 32], [12, 16], [12, 16]], "
        "got [[24, 34], [12, 17], [12, 17]]",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, FRAME, subsampling=(2, 1)),
        "composite: planes must have chroma of shape [24, 16], got [[12, 16], [12, 16]]",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, FRAME, light_wrap=1.5),
        "composite: light_wrap must be between 0 and 1, got 1.5",
    ),
    (lambda: ops.fade_islands(ALPHA[0]), "fade_islands: alpha must be [h, w], not empty, got [16]"),
    (lambda: ops.fill_holes(ALPHA[0]), "fill_holes: alpha must be [h, w], not empty, got [16]"),
    (
        lambda: ops.guided_filter(ALPHA, IMAGE[0]),
        "guided_filter: image must have shape [3, 8, 16], got [3, 8, 8]",
    ),
    (
        lambda: ops.guided_filter(ALPHA[:, :8], IMAGE[0].half()),
        "guided_filter: image must be float32, got torch.float16",
    ),
    (
        lambda: ops.guided_filter(FAR[:, :8], IMAGE[0]),
        "guided_filter: image must be on meta, got cpu",
    ),
    (
        lambda: ops.steady_alpha(ALPHA, ALPHA[:4], certain=0.2, steady=0.5),
        "steady_alpha: previous must have alpha's shape [8, 16], got [4, 16]",
    ),
    (
        lambda: ops.steady_alpha(ALPHA, ALPHA, certain=0.0, steady=0.5),
        "steady_alpha: certain must be positive, got 0.0",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA.double(), FRAME),
        "composite: alpha must be float32, got torch.float64",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA[None], FRAME),
        "composite: alpha must be [h, w], not empty, got [1, 8, 16]",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, FRAME, depth=10),
        "composite: planes must be torch.int16 at 10 bits, got torch.uint8",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, FRAME, depth=9),
        "composite: depth must be one of 8, 10, 12, got 9",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, FRAME, upsampling="cubic"),
        "composite: upsampling must be one of guided, bilinear, got cubic",
    ),
    (
        lambda: ops.upsample_alpha(ALPHA, BYTE[0]),
        "upsample_alpha: luma must be [H, W], not empty, got [4]",
    ),
    (
        lambda: ops.upsample_alpha(ALPHA[:0], BYTE),
        "upsample_alpha: alpha must be [h, w], not empty, got [0, 16]",
    ),
    (
        lambda: ops.masked_blur(FRAME, ALPHA, sigma=0.0),
        "masked_blur: sigma must be positive and finite, got 0.0",
    ),
    (
        lambda: ops.frame_to_input([SHORT] * 3, **COLOUR),
        "frame_to_input: planes must be torch.uint8 at 8 bits, got torch.int16",
    ),
    (
        lambda: ops.frame_to_input([BYTE] * 3, **COLOUR | {"matrix": "bt2100"}),
        "frame_to_input: matrix must be one of bt601, bt709, bt2020, got bt2100",
    ),
    (
        lambda: ops.frame_to_input([BYTE] * 3, **COLOUR | {"size": (0, 8)}),
        "frame_to_input: size must be two positive numbers, got (0, 8)",
    ),
    (
        lambda: ops.frame_to_input([BYTE] * 3, **COLOUR, dtype=torch.float64),
        "frame_to_input: dtype must be one of torch.float32, torch.float16, torch.bfloat16, "
        "got torch.float64",
    ),
    (
        lambda: ops.frame_to_input([BYTE], **COLOUR),
        "frame_to_input: planes must be Y, U, V or Y, UV, got 1 planes",
    ),
    (
        lambda: ops.frame_to_input([BYTE, BYTE[:2], BYTE[:3]], **COLOUR),
        "frame_to_input: planes must have U and V of one size, got [2, 4] and [3, 4]",
    ),
    (
        lambda: ops.frame_to_input([BYTE, BYTE[:2, :3]], **COLOUR),
        "frame_to_input: planes must have U and V of one size, got [2, 2] and [2, 1]",
    ),
    (
        lambda: ops.frame_to_input([BYTE, BYTE, BYTE.to("meta")], **COLOUR),
        "frame_to_input: planes must be on cpu, got meta",
    ),
    (
        lambda: ops.composite(FRAME, FAR, FRAME),
        "composite: alpha must be on cpu, got meta",
    ),
    (
        lambda: ops.composite(FRAME, ALPHA, [p.to("meta") for p in FRAME]),
        "composite: background must be on cpu, got meta",
    ),
    (lambda: ops.upsample_alpha(FAR, BYTE), "upsample_alpha: alpha must be on cpu, got meta"),
    (lambda: ops.masked_blur(FRAME, FAR, sigma=2.0), "masked_blur: alpha must be on cpu, got meta"),
    (
        lambda: ops.steady_alpha(ALPHA, FAR, certain=0.2, steady=0.5),
        "steady_alpha: previous must be on cpu, got meta",
    ),
    (
        lambda: ops.sobel_gradient(torch.zeros(8, 8)),
        "sobel_gradient: image must be [N, C, H, W], got 2 dimensions",
    ),
    (
        lambda: ops.sobel_gradient(torch.zeros(1, 3, 8, 8, dtype=torch.float16)),
        "sobel_gradient: image must be float32 or float64, got torch.float16",
    ),
    (
        lambda: ops.refine_loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 9), torch.zeros(1, 1, 8, 8)),
        "refine_loss: prediction must be [1, 1, 8, 8], got [1, 1, 8, 9]",
    ),
    (
        lambda: ops.refine_loss(IMAGE, IMAGE[:, :1], IMAGE[:, :1].to("meta")),
        "refine_loss: mask must be on cpu, got meta",
    ),
    (
        lambda: ops.boundary_attention(IMAGE[:, :1].to("meta"), IMAGE, temperature=4),
        "boundary_attention: logits must be on cpu, got meta",
    ),
    (
        lambda: ops.boundary_attention(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 8, 8), temperature=4),
        "boundary_attention: logits must be [N, 1, h, w], got [1, 2, 4, 4]",
    ),
    (
        lambda: ops.boundary_attention(torch.zeros(2, 1, 4, 4), torch.zeros(1, 3, 8, 8), temperature=4),
        "boundary_attention: logits must have the image's batch size 1, got 2",
    ),
    (
        lambda: ops.boundary_attention(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 8, 8), temperature=-1),
        "boundary_attention: temperature must be positive, got -1",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS, ids=[message[:40] for _, message in REFUSALS])
def test_refusal(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        call()
    assert str(refusal.value) == message

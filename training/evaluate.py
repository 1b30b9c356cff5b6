"""Accuracy of weights on hand-made masks.

python -m training.evaluate --data ../shared/data/portraits-val.tar
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

from . import metrics
from .data import Pair, to_input


@torch.inference_mode()
def miou(model: nn.Module, pairs: list[Pair], device: str, size: int = 320) -> dict[str, float]:
    """mIoU over the set and the mean of the pictures' own; ``size``: longest side the network sees."""
    model.eval()
    total = metrics.MeanIoU()
    each = []
    for pair in pairs:
        image, matte = pair.decode()
        rows, columns = matte.shape
        scale = size / max(rows, columns)
        small = cv2.resize(image, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_AREA)
        logits = model(to_input(small[None].astype(np.uint8)).to(device)).alpha
        alpha = torch.sigmoid(logits)[0, 0].float().cpu().numpy()
        alpha = cv2.resize(alpha, (columns, rows), interpolation=cv2.INTER_LINEAR)
        each.append(total.add(alpha.astype(np.float32), matte))
    return {"miou": total.value, "miou_per_picture": float(np.mean(each))}

"""BANet's base model of the ablation (paper, section 5): no boundary attention map, and no loss for one.

The detail branch looks at the picture itself; everything else is BANet's.
"""

from __future__ import annotations

from torch import Tensor, nn

from banet_stream.network import DETAIL_CHANNELS, BANet, conv_bn, upsample

from .common import Baseline


class PlainBANet(Baseline):
    def __init__(self, channels: int = 64, *, detail_stride: int = 2) -> None:
        super().__init__()
        whole = BANet(channels, detail_stride=detail_stride)
        self.detail_stride = detail_stride
        self.semantic, self.fusion, self.head = whole.semantic, whole.fusion, whole.head
        self.detail = nn.Sequential(
            *conv_bn(3, DETAIL_CHANNELS, 5, stride=detail_stride), nn.ReLU(inplace=True)
        )

    def logits(self, image: Tensor) -> Tensor:  # -> [N, 1, H, W]
        semantic = upsample(self.semantic(image), 4 // self.detail_stride)
        return upsample(self.head(self.fusion(semantic, self.detail(image))), self.detail_stride)

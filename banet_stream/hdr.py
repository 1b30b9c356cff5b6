"""Wide colours and high dynamic range: pictures made for ordinary screens placed in such video, and back.

Ordinary means BT.709's primaries, with which BT.601's count as equal here, and a gamma-like curve. Ordinary
white is put at 203 cd/m2, as ITU-R BT.2408 (2.1) recommends for graphics in HDR programmes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av
import torch
from av.sidedata.sidedata import Type
from torch import Tensor

from .frame import Colour
from .side_data import side_data_of

# Code points of H.273: primaries of BT.2020; transfer of SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG).
BT2020, PQ, HLG = 9, 16, 18
WHITE_NITS, PQ_NITS = 203.0, 10_000.0
HLG_NITS, HLG_GAMMA = 1000.0, 1.2  # of the nominal screen (BT.2100-2, table 5)
# ST 2084, 5.2; the same numbers in BT.2100-2, table 4.
M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100-2, table 5.
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
# ITU-R BT.2087-0, 2.2.
TO_2020 = torch.tensor([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
FROM_2020 = torch.linalg.inv(TO_2020)
BT1886 = 2.4  # how screens show BT.709's and BT.2020's signals: ITU-R BT.1886, annex 1, with black at 0
LUMINANCE_2020 = torch.tensor([0.2627, 0.6780, 0.0593])
# Highlights above this share of white are rolled off when HDR is shown to a network trained on photos.
KNEE = 0.75


def is_hdr(colour: Colour) -> bool:
    """PQ or HLG."""
    return colour.transfer in (PQ, HLG)


def kind_of(colour: Colour) -> tuple[bool, int]:
    """What two videos must have in common for their samples to mean the same colours."""
    return colour.primaries == BT2020, colour.transfer if is_hdr(colour) else 0


def place(rgb: Tensor, colour: Colour) -> Tensor:
    """[..., 3] in 0..1 of an image file (sRGB) -> the same colours in a video's primaries and transfer."""
    wide, curve = kind_of(colour)
    if not curve:
        if not wide:
            return rgb
        return bt709_encode((bt709_decode(rgb) @ TO_2020.T).clamp(0, 1))
    linear = srgb_decode(rgb)
    light = (linear @ TO_2020.T if wide else linear).clamp(min=0) * WHITE_NITS
    return pq_encode(light) if curve == PQ else hlg_encode(light)


def for_network(rgb: Tensor, colour: Colour) -> Tensor:
    """[..., 3] HDR in 0..1 -> sRGB, as pictures look that networks are trained with."""
    light = pq_decode(rgb) if colour.transfer == PQ else hlg_decode(rgb)
    linear = light / WHITE_NITS
    if colour.primaries == BT2020:
        linear = linear @ FROM_2020.T.to(linear.device)
    peak = linear.amax(-1, keepdim=True).clamp(min=1e-6)
    rolled = torch.where(peak > KNEE, KNEE + (1 - KNEE) * (1 - torch.exp(-(peak - KNEE) / (1 - KNEE))), peak)
    return srgb_encode((linear * (rolled / peak)).clamp(0, 1))


# --- curves: 0..1 signal, and light in cd/m2 or relative to white ------------------------------------


def srgb_decode(signal: Tensor) -> Tensor:
    return torch.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def srgb_encode(linear: Tensor) -> Tensor:
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0) ** (1 / 2.4) - 0.055)


def bt709_decode(signal: Tensor) -> Tensor:
    return signal.clamp(min=0) ** BT1886


def bt709_encode(linear: Tensor) -> Tensor:
    return linear.clamp(min=0) ** (1 / BT1886)


def pq_encode(nits: Tensor) -> Tensor:
    y = (nits / PQ_NITS).clamp(0, 1) ** M1
    return ((C1 + C2 * y) / (1 + C3 * y)) ** M2


def pq_decode(signal: Tensor) -> Tensor:
    e = signal.clamp(0, 1) ** (1 / M2)
    return ((e - C1).clamp(min=0) / (C2 - C3 * e)) ** (1 / M1) * PQ_NITS


def hlg_encode(nits: Tensor) -> Tensor:
    shown = (nits / HLG_NITS).clamp(0, 1)
    luminance = (shown @ LUMINANCE_2020.to(shown.device))[..., None].clamp(min=1e-9)
    scene = shown * luminance ** (1 / HLG_GAMMA - 1)
    high = HLG_A * torch.log((12 * scene - HLG_B).clamp(min=1e-9)) + HLG_C
    return torch.where(scene <= 1 / 12, (3 * scene).sqrt(), high).clamp(0, 1)


def hlg_decode(signal: Tensor) -> Tensor:
    scene = torch.where(
        signal <= 0.5, signal**2 / 3, (torch.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12
    ).clamp(min=0)
    luminance = (scene @ LUMINANCE_2020.to(scene.device))[..., None].clamp(min=1e-9)
    return scene * luminance ** (HLG_GAMMA - 1) * HLG_NITS


# --- metadata --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LightMetadata:
    """SMPTE ST 2086's mastering display and CTA-861.3's light levels, in x265's and SVT-AV1's units.

    ``display``: green, blue, red and white x and y in 1/50,000, highest and lowest luminance in
    1/10,000 cd/m2. ``levels``: MaxCLL and MaxFALL in cd/m2. Either may be missing.
    """

    display: tuple[int, ...] | None
    levels: tuple[int, int] | None

    def encoder_options(self, encoder: str) -> dict[str, str]:
        """What the encoder is told; empty where it knows no way."""
        words = []
        if encoder == "libx265":
            if self.display:
                words.append("master-display=G({},{})B({},{})R({},{})WP({},{})L({},{})".format(*self.display))
            if self.levels:
                words.append("max-cll={},{}".format(*self.levels))
            return {"x265-params": ":".join(["log-level=error", "hdr10=1", *words])} if words else {}
        if encoder == "libsvtav1":
            if self.display:
                places = [f"{v / 50_000:.5f}" for v in self.display[:8]]
                lights = [f"{v / 10_000:.4f}" for v in self.display[8:]]
                words.append(
                    "mastering-display=G({},{})B({},{})R({},{})WP({},{})L({},{})".format(*places, *lights)
                )
            if self.levels:
                words.append("content-light={},{}".format(*self.levels))
            return {"svtav1-params": ":".join(words)} if words else {}
        return {}


def light_metadata(picture: av.VideoFrame) -> LightMetadata | None:
    """A decoded picture's, from FFmpeg's AVMasteringDisplayMetadata and AVContentLightMetadata."""
    display: tuple[int, ...] | None = None
    levels: tuple[int, int] | None = None
    contents = {side.type: bytes(side) for side in side_data_of(picture)}
    if Type.MASTERING_DISPLAY_METADATA in contents:
        numbers = struct.unpack_from("20i", contents[Type.MASTERING_DISPLAY_METADATA])
        values = [n / d if d else 0.0 for n, d in zip(numbers[0::2], numbers[1::2], strict=True)]
        red, green, blue, white = (values[i : i + 2] for i in (0, 2, 4, 6))
        lowest, highest = values[8:10]
        display = (
            *(round(v * 50_000) for v in (*green, *blue, *red, *white)),
            *(round(v * 10_000) for v in (highest, lowest)),
        )
    if Type.CONTENT_LIGHT_LEVEL in contents:
        brightest, average = struct.unpack_from("2I", contents[Type.CONTENT_LIGHT_LEVEL])
        levels = (brightest, average)
    return LightMetadata(display, levels) if display or levels else None

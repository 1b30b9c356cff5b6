"""BANet as a paper's repository would run it: PyTorch eager, float32, plain blending, no operator of ours.

torch_eager.py IN OUT BACKGROUND [SIZE]
"""

import os

os.environ["BANET_BACKEND"] = "reference"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import av
import numpy as np
import torch
from common import arguments, run
from PIL import Image
from torch.nn import functional as F

from banet_stream.engines import load_network
from banet_stream.matting import network_size
from banet_stream.network import MEAN, STD

if __name__ == "__main__":
    source, target, background, *rest = arguments(__doc__)
    network, size = load_network("banet64").eval(), int(rest[0]) if rest else 512
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    picture = Image.open(background).convert("RGB")

    @torch.inference_mode()
    def work(frame: av.VideoFrame) -> av.VideoFrame:
        rgb = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float() / 255
        behind = (
            torch.from_numpy(np.array(picture.resize((frame.width, frame.height)))).permute(2, 0, 1) / 255
        )
        seen = network_size(frame.height, frame.width, size)
        small = F.interpolate((rgb - mean)[None] / std, seen, mode="bilinear", antialias=True)
        alpha = torch.sigmoid(network(small).alpha)
        alpha = F.interpolate(alpha, rgb.shape[1:], mode="bilinear")[0]
        mixed = ((rgb * alpha + behind * (1 - alpha)) * 255).byte().permute(1, 2, 0).contiguous()
        return av.VideoFrame.from_ndarray(mixed.numpy(), format="rgb24").reformat(format="yuv420p")

    run(source, target, work)

"""What a user would write around RobustVideoMatting's ONNX file: rvm_shaped.py IN OUT BACKGROUND NETWORK.onnx

The network (rvm_network.py writes it) sees 512x288; its matte is enlarged, and the frame blended by it.
"""

import os

import av
import numpy as np
import onnxruntime
from common import arguments, run
from PIL import Image

STATES = 4

if __name__ == "__main__":
    source, target, background, network = arguments(__doc__)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    shapes = {given.name: given.shape for given in session.get_inputs()}
    height, width = shapes["image"][2:]
    states = {f"state{i}": np.zeros(shapes[f"state{i}"], np.float32) for i in range(STATES)}
    picture = Image.open(background).convert("RGB")
    behind = None

    def work(frame: av.VideoFrame) -> av.VideoFrame:
        global behind, states  # noqa: PLW0603
        rgb = frame.to_ndarray(format="rgb24")
        if behind is None:
            behind = np.asarray(picture.resize((frame.width, frame.height)), np.float32)
        small = frame.reformat(width, height, "rgb24").to_ndarray()
        image = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32)[None] / 255
        _, alpha, *after = session.run(None, {"image": image, **states})
        states = dict(zip(states, after, strict=True))
        mask = np.asarray(Image.fromarray(alpha[0, 0]).resize((frame.width, frame.height), Image.BILINEAR))
        mixed = rgb * mask[..., None] + behind * (1 - mask[..., None])
        return av.VideoFrame.from_ndarray(mixed.astype(np.uint8), format="rgb24").reformat(format="yuv420p")

    run(source, target, work)

"""What a user would write with MediaPipe's selfie segmentation (mediapipe 0.10.14 has it; later ones don't).

mediapipe_selfie.py IN OUT BACKGROUND [landscape|general]
"""

import av
import mediapipe
import numpy as np
from common import arguments, run
from PIL import Image

MODELS = {"general": 0, "landscape": 1}

if __name__ == "__main__":
    source, target, background, *rest = arguments(__doc__)
    network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(
        model_selection=MODELS[rest[0] if rest else "landscape"]
    )
    picture = Image.open(background).convert("RGB")
    behind = None

    def work(frame: av.VideoFrame) -> av.VideoFrame:
        global behind  # noqa: PLW0603
        rgb = frame.to_ndarray(format="rgb24")
        if behind is None:
            behind = np.asarray(picture.resize((frame.width, frame.height)), np.float32)
        mask = network.process(rgb).segmentation_mask[..., None]
        mixed = rgb * mask + behind * (1 - mask)
        return av.VideoFrame.from_ndarray(mixed.astype(np.uint8), format="rgb24").reformat(format="yuv420p")

    run(source, target, work)

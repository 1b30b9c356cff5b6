"""MediaPipe's mattes of a tar's pictures, for accuracy: mediapipe_mattes.py TAR FOLDER [landscape|general]

Writes FOLDER/KEY.png for every KEY.jpg, 255 = person.
"""

import io
import sys
import tarfile
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe_selfie import MODELS
from PIL import Image

if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, folder, model = sys.argv[1:]
    network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=MODELS[model])
    with tarfile.open(source) as tar:
        for member in tar:
            if not member.name.endswith(".jpg"):
                continue
            network.reset()  # pictures, not a video's frames
            rgb = np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB"))
            mask = network.process(rgb).segmentation_mask
            name = Path(member.name).with_suffix(".png").name
            Image.fromarray((255 * mask).round().astype(np.uint8)).save(Path(folder) / name)

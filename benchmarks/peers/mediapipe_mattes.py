"""MediaPipe's mattes of a tar's pictures: mediapipe_mattes.py TAR FOLDER landscape|general [mirrored]

Writes FOLDER/KEY.png for every KEY.jpg, 255 = person. With "mirrored" the mean with what it says of the
mirrored picture, which is nearer to the truth: for training.pseudo; without, for accuracy.
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
    if len(sys.argv) not in (4, 5) or sys.argv[4:] not in ([], ["mirrored"]):
        sys.exit(__doc__)
    source, folder, model, *mirrored = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    network = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=MODELS[model])

    def look(rgb: np.ndarray) -> np.ndarray:
        network.reset()  # pictures, not a video's frames
        return network.process(rgb).segmentation_mask

    with tarfile.open(source) as tar:
        for member in tar:
            if not member.name.endswith(".jpg"):
                continue
            rgb = np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB"))
            mask = look(rgb)
            if mirrored:
                mask = (mask + look(np.ascontiguousarray(rgb[:, ::-1]))[:, ::-1]) / 2
            name = Path(member.name).with_suffix(".png").name
            Image.fromarray((255 * mask).round().astype(np.uint8)).save(Path(folder) / name)

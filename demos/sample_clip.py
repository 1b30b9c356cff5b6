"""A clip of one's own: scikit-image's public-domain astronaut sways before her background, with a tone.

python demos/sample_clip.py sample.mp4
"""

from __future__ import annotations

import sys
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray
from skimage.data import astronaut

WIDTH, HEIGHT = 640, 480
RATE = 30
SECONDS = 4
SAMPLE_RATE = 48000
TONE_HZ = 440.0
# The part of the 512x512 portrait that shows head and shoulders at 4:3.
TOP, BOTTOM = 0, 384
# She stands at this column (of 512), sways this far, and what is this far from her stays.
CENTRE, SWAY, REACH = 225.0, 18.0, 130.0


def portrait(seconds: float) -> NDArray[np.uint8]:
    """[384, 512, 3] RGB: the columns around the subject shifted sideways, those far away at rest."""
    columns = np.arange(512, dtype=np.float64)
    weight = np.exp(-(((columns - CENTRE) / REACH) ** 2))
    source = np.clip(columns - SWAY * np.sin(2 * np.pi * seconds / SECONDS) * weight, 0, 510.999)
    left = source.astype(int)
    share = (source - left)[None, :, None]
    picture = astronaut()[TOP:BOTTOM].astype(np.float64)
    return np.round(picture[:, left] * (1 - share) + picture[:, left + 1] * share).astype(np.uint8)


def tone(start: int, count: int) -> av.AudioFrame:
    """``count`` samples of a quiet sine, beginning with sample number ``start``."""
    samples = np.sin(2 * np.pi * TONE_HZ * (start + np.arange(count)) / SAMPLE_RATE) * 0.1
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
    return frame


def write_sample_clip(path: str) -> None:
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "16"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index in range(RATE * SECONDS):
            picture = av.VideoFrame.from_ndarray(portrait(index / RATE), format="rgb24")
            container.mux(video.encode(picture.reformat(width=WIDTH, height=HEIGHT, format="yuv420p")))
            container.mux(audio.encode(tone(index * SAMPLE_RATE // RATE, SAMPLE_RATE // RATE)))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    write_sample_clip(sys.argv[1])

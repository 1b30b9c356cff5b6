"""A clip of one's own: scikit-image's public-domain astronaut sways before her background, with a tone.

python demos/sample_clip.py sample.mp4
"""

from __future__ import annotations

import sys

from banet_stream.demo.samples import write_sample_clip

if __name__ == "__main__":
    write_sample_clip(sys.argv[1])

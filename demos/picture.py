"""The README's picture: a frame, its matte, and the frame before a room, a blur and a colour.

python demos/picture.py docs/picture.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from banet_stream import EncodeOptions, Matter, iter_mattes, process
from banet_stream.demo.samples import draw_room, write_sample_clip

# The moment of the clip that is shown, and the height of each tile.
SECONDS = 1.0
TILE_HEIGHT = 300
GAP = 6


def frame_at(path: Path, seconds: float) -> Image.Image:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= seconds:
                return frame.to_image()
    raise ValueError(f"{path}: ends before {seconds} s")


def tiles(folder: Path) -> list[Image.Image]:
    clip, room, matter = folder / "clip.mp4", folder / "room.png", Matter()
    write_sample_clip(str(clip))
    draw_room().save(room)
    shown = next(m for m in iter_mattes(clip, matter=matter) if m.pts_seconds >= SECONDS)
    pictures = [Image.fromarray(shown.rgb), Image.fromarray(np.round(shown.alpha * 255).astype(np.uint8))]
    for name, background in (("room", str(room)), ("blur", "blur:70"), ("colour", "#2a6f97")):
        output = folder / f"{name}.mp4"
        process(clip, output, background=background, matter=matter, encoding=EncodeOptions(crf=12))
        pictures.append(frame_at(output, SECONDS))
    return [p.convert("RGB").resize((p.width * TILE_HEIGHT // p.height, TILE_HEIGHT)) for p in pictures]


def main(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = tiles(Path(folder))
    width = sum(p.width + GAP for p in pictures) - GAP
    sheet = Image.new("RGB", (width, TILE_HEIGHT), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])

"""Examples made on the spot: a clip of scikit-image's public-domain astronaut, and drawn backgrounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480
RATE = 30
SECONDS = 4
SAMPLE_RATE = 48000
TONE_HZ = 440.0
# The part of the 512x512 portrait that shows head and shoulders at 4:3.
TOP, BOTTOM = 0, 384
# She stands at this column (of 512), sways this far, and what is this far from her stays.
CENTRE, SWAY, REACH = 225.0, 18.0, 130.0

PICTURE_SIZE = (1920, 1080)
# A moving background: coloured lights that drift and come back after LOOP_SECONDS.
LOOP_SIZE, LOOP_RATE, LOOP_SECONDS = (640, 360), 20, 4


@cache
def astronaut() -> NDArray[np.uint8]:
    """[512, 512, 3] RGB. Cached: the clip asks for it frame by frame."""
    from skimage import data  # noqa: PLC0415  (of the extras)

    picture: NDArray[np.uint8] = data.astronaut()  # type: ignore[no-untyped-call]
    return picture


def portrait(seconds: float) -> NDArray[np.uint8]:
    """[384, 512, 3] RGB: the columns around the subject shifted sideways, those far away at rest."""
    columns = np.arange(512, dtype=np.float64)
    weight = np.exp(-(((columns - CENTRE) / REACH) ** 2))
    source = np.clip(columns - SWAY * np.sin(2 * np.pi * seconds / SECONDS) * weight, 0, 510.999)
    left = source.astype(int)
    share = (source - left)[None, :, None]
    picture = astronaut()[TOP:BOTTOM].astype(np.float64)
    moved = picture[:, left] * (1 - share) + picture[:, left + 1] * share
    return np.asarray(np.round(moved), np.uint8)


def tone(start: int, count: int) -> av.AudioFrame:
    """``count`` samples of a quiet sine, beginning with sample number ``start``."""
    samples = np.sin(2 * np.pi * TONE_HZ * (start + np.arange(count)) / SAMPLE_RATE) * 0.1
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
    return frame


def write_sample_clip(path: str | Path, *, seconds: float = SECONDS) -> None:
    """She sways before her background, with a tone; ``seconds`` of it."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "16"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index in range(round(RATE * seconds)):
            picture = av.VideoFrame.from_ndarray(portrait(index / RATE), format="rgb24")
            container.mux(video.encode(picture.reformat(width=WIDTH, height=HEIGHT, format="yuv420p")))
            container.mux(audio.encode(tone(index * SAMPLE_RATE // RATE, SAMPLE_RATE // RATE)))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


# --- backgrounds -------------------------------------------------------------------------------


def gradient(top: tuple[int, int, int], bottom: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    mask = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), mask)


def draw_room() -> Image.Image:
    """A sunlit wall, a window, a plant, a desk."""
    width, height = PICTURE_SIZE
    room = gradient((226, 214, 196), (196, 178, 156), PICTURE_SIZE)
    pen = ImageDraw.Draw(room)
    # Window with sky, hills and a cross.
    sky = gradient((120, 178, 230), (232, 240, 244), (560, 520))
    hills = ImageDraw.Draw(sky)
    hills.polygon(
        [(x, 400 + 40 * math.sin(x / 90)) for x in range(0, 561, 8)] + [(560, 520), (0, 520)], (104, 148, 92)
    )
    room.paste(sky, (190, 150))
    for box in ((180, 140, 760, 160), (180, 660, 760, 684), (180, 140, 200, 684), (740, 140, 760, 684)):
        pen.rectangle(box, (246, 244, 240))
    pen.rectangle((464, 150, 478, 670), (246, 244, 240))
    # A picture on the wall, a shelf with books.
    pen.rectangle((1240, 180, 1700, 470), (92, 72, 54))
    room.paste(gradient((238, 170, 92), (120, 62, 88), (420, 250)), (1260, 200))
    pen.rectangle((1180, 640, 1780, 662), (122, 88, 58))
    for i in range(14):
        top = 640 - 90 - (i * 37) % 60
        colour = ((90 + i * 53) % 180, (70 + i * 91) % 160, (80 + i * 37) % 170)
        pen.rectangle((1200 + i * 38, top, 1230 + i * 38, 640), colour)
    # Plant.
    for i in range(16):
        angle = math.radians(200 + i * 9)
        tip = (980 + 170 * math.cos(angle), 900 + 330 * math.sin(angle))
        pen.line([(980, 930), tip], (64, 118 + i * 3, 72), 16)
    pen.polygon([(920, 900), (1040, 900), (1020, 1040), (940, 1040)], (176, 98, 70))
    # Desk.
    pen.rectangle((0, 1000, width, height), (112, 80, 56))
    return room.filter(ImageFilter.GaussianBlur(2.5))


def draw_sunset() -> Image.Image:
    """The sun above the sea."""
    width, height = PICTURE_SIZE
    horizon = 660
    scene = gradient((44, 52, 108), (250, 156, 92), PICTURE_SIZE)
    scene.paste(gradient((206, 120, 96), (26, 38, 74), (width, height - horizon)), (0, horizon))
    glow = Image.new("L", (width // 10, height // 10))
    ImageDraw.Draw(glow).ellipse((76, 38, 116, 78), 200)
    glow = glow.filter(ImageFilter.GaussianBlur(12)).resize(PICTURE_SIZE, Image.Resampling.BICUBIC)
    scene.paste((255, 214, 140), (0, 0), glow)
    sun = Image.new("L", PICTURE_SIZE)
    ImageDraw.Draw(sun).ellipse((860, 480, 1060, 680), 255)
    sun.paste(0, (0, horizon, width, height))
    scene.paste((255, 240, 206), (0, 0), sun.filter(ImageFilter.GaussianBlur(3)))
    pen = ImageDraw.Draw(scene)
    for i in range(46):  # its light on the waves, wider and darker towards us
        y = horizon + 6 + i * 9
        reach = 90 + i * 5 + (i * 67) % 60
        offset = (i * 131) % 80 - 40
        share = 1 - i / 60
        colour = tuple(round(c * share) for c in (255, 206, 150))
        pen.line([(960 + offset - reach, y), (960 + offset + reach, y)], colour, 4)
    return scene.filter(ImageFilter.GaussianBlur(2))


def draw_studio() -> Image.Image:
    """A grey wall in a photographer's light."""
    light = Image.radial_gradient("L").resize((2600, 1900)).crop((340, 250, 2260, 1330))
    return Image.composite(
        Image.new("RGB", PICTURE_SIZE, (30, 36, 46)), Image.new("RGB", PICTURE_SIZE, (150, 162, 176)), light
    )


def draw_lights(size: tuple[int, int] = PICTURE_SIZE, *, phase: float = 0.0) -> Image.Image:
    """A city at night, out of focus; ``phase`` 0 to 1 moves the lights once around."""
    width, height = size
    scene = np.asarray(gradient((12, 14, 34), (44, 28, 58), size)).astype(np.float32)
    unit = height / 1080
    generator = np.random.default_rng(7)
    for _ in range(46):
        x, y = generator.uniform(0, width), generator.normal(0.62, 0.16) * height
        radius = generator.uniform(24, 78) * unit
        colour = np.array([(255, 176, 96), (255, 106, 92), (130, 190, 255), (255, 226, 170)])[
            generator.integers(4)
        ]
        turn, brightness = generator.uniform(0, 2 * np.pi), generator.uniform(0.15, 0.5)
        x += 60 * unit * math.sin(2 * math.pi * phase + turn)
        y += 22 * unit * math.cos(2 * math.pi * phase + turn)
        # Only the box around it.
        left, top = (max(0, int(centre - radius) - 3) for centre in (x, y))
        box = scene[top : max(0, int(y + radius) + 4), left : max(0, int(x + radius) + 4)]
        rows, columns = np.ogrid[: box.shape[0], : box.shape[1]]
        disc = np.clip((radius - np.hypot(columns + left - x, rows + top - y)) / (3 * unit) + 0.5, 0, 1)
        box += disc[..., None] * colour * brightness
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))


def write_moving_lights(path: str | Path) -> None:
    """A short clip that joins end to beginning."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=LOOP_RATE, options={"crf": "20"})
        (video.width, video.height), video.pix_fmt = LOOP_SIZE, "yuv420p"
        count = LOOP_RATE * LOOP_SECONDS
        for index in range(count):
            picture = draw_lights(LOOP_SIZE, phase=index / count)
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        container.mux(video.encode(None))


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "room": draw_room,
    "sunset": draw_sunset,
    "studio": draw_studio,
    "lights": draw_lights,
}


def write_all(folder: Path) -> None:
    """``clip.mp4``, ``portrait.jpg``, ``moving-lights.mp4`` and one JPEG per background, into ``folder``."""
    for name, draw in PICTURES.items():
        draw().save(folder / f"{name}.jpg", quality=88)
    Image.fromarray(astronaut()).save(folder / "portrait.jpg", quality=92)
    write_sample_clip(folder / "clip.mp4")
    write_moving_lights(folder / "moving-lights.mp4")

"""Draws a background picture: a sunlit wall, a window, a plant, a desk.

python demos/room.py room.png
"""

from __future__ import annotations

import math
import sys

from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 1920, 1080


def gradient(top: tuple[int, int, int], bottom: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    mask = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), mask)


def draw_room() -> Image.Image:
    room = gradient((226, 214, 196), (196, 178, 156), (WIDTH, HEIGHT))
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
        height = 90 + (i * 37) % 60
        colour = ((90 + i * 53) % 180, (70 + i * 91) % 160, (80 + i * 37) % 170)
        pen.rectangle((1200 + i * 38, 640 - height, 1230 + i * 38, 640), colour)
    # Plant.
    for i in range(16):
        angle = math.radians(200 + i * 9)
        tip = (980 + 170 * math.cos(angle), 900 + 330 * math.sin(angle))
        pen.line([(980, 930), tip], (64, 118 + i * 3, 72), 16)
    pen.polygon([(920, 900), (1040, 900), (1020, 1040), (940, 1040)], (176, 98, 70))
    # Desk.
    pen.rectangle((0, 1000, WIDTH, HEIGHT), (112, 80, 56))
    return room.filter(ImageFilter.GaussianBlur(2.5))


if __name__ == "__main__":
    draw_room().save(sys.argv[1])

"""Draws a background picture: a sunlit wall, a window, a plant, a desk.

python demos/room.py room.png
"""

from __future__ import annotations

import sys

from banet_stream.demo.samples import draw_room

if __name__ == "__main__":
    draw_room().save(sys.argv[1])

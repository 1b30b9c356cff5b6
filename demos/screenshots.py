"""The README's picture of the browser demo: its tabs, at a desktop's width and a phone's.

python demos/screenshots.py docs/demo.png [FOLDER]    every screenshot by itself goes to FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from in_browser import browser, start_demo, write_camera
from PIL import Image

DESKTOP, PHONE = (1180, 820), (390, 820)
# Four of a desktop, two by two, beside one of a phone.
SHOWN_HEIGHT, GAP = 560, 14
PATIENCE_MS = 180_000
CAMERA_MS = 6000


def shoot_video(page: Any) -> None:
    page.locator("#video-examples button, #video-examples .gallery-item").first.click()
    page.wait_for_selector("#video-input video")
    page.click("#video-run")
    page.wait_for_selector("#video-status .good")
    page.wait_for_selector("#video-pair img")


def shoot_webcam(page: Any) -> None:
    page.get_by_role("button", name="Start camera").click()
    page.wait_for_selector("#webcam .figures[data-fps]")
    page.wait_for_timeout(CAMERA_MS)


def shoot_photo(page: Any) -> None:
    page.locator("#photo-examples button, #photo-examples .gallery-item").first.click()
    page.wait_for_selector("#photo-input img")
    page.click("#photo-run")
    page.wait_for_selector("#photo-pair img")


def shoot_explained(page: Any) -> None:
    page.click("#explain-run")
    page.wait_for_selector("#explain-timing .timing")


TABS = {"Video": shoot_video, "Webcam": shoot_webcam, "Photo": shoot_photo, "How it works": shoot_explained}


def shoot(window: Any, address: str, folder: Path, size: tuple[int, int], scheme: str) -> list[Path]:
    """One screenshot of the whole page per tab."""
    context = window.new_context(
        permissions=["camera"],
        viewport=dict(zip(("width", "height"), size, strict=True)),
        color_scheme=scheme,
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(address)
    paths = []
    for name, prepare in TABS.items():
        page.wait_for_timeout(500)
        page.get_by_role("tab", name=name).click()
        prepare(page)
        page.wait_for_timeout(1500)  # what was loaded is drawn
        paths.append(folder / f"{name.replace(' ', '-').lower()}-{size[0]}-{scheme}.png")
        page.screenshot(path=paths[-1], full_page=True)
        if name == "Webcam":
            page.get_by_role("button", name="Stop").click()
    context.close()
    return paths


def sheet(desktop: list[Path], phone: Path) -> Image.Image:
    """Desktop's tabs two by two, and the phone beside them."""
    width = SHOWN_HEIGHT * DESKTOP[0] // DESKTOP[1]
    tall = 2 * SHOWN_HEIGHT + GAP
    narrow = tall * PHONE[0] // (2 * PHONE[1])
    whole = Image.new("RGB", (2 * width + narrow + 2 * GAP, tall), "#8a94a0")
    for index, path in enumerate(desktop):
        tile = top_of(path, DESKTOP).resize((width, SHOWN_HEIGHT), Image.Resampling.LANCZOS)
        whole.paste(tile, (index % 2 * (width + GAP), index // 2 * (SHOWN_HEIGHT + GAP)))
    strip = top_of(phone, (PHONE[0], 2 * PHONE[1])).resize((narrow, tall), Image.Resampling.LANCZOS)
    whole.paste(strip, (2 * (width + GAP), 0))
    return whole


def top_of(path: Path, size: tuple[int, int]) -> Image.Image:
    """The upper part of a screenshot, its last colour continued where it is shorter."""
    with Image.open(path) as picture:
        whole = picture.convert("RGB")
    ground = Image.new("RGB", size, whole.getpixel((2, whole.height - 2)))
    ground.paste(whole, (0, 0))
    return ground


def main(path: str, kept: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(kept or work)
        folder.mkdir(parents=True, exist_ok=True)
        camera = Path(work) / "camera.mjpeg"
        write_camera(camera)
        with start_demo(Path(work)) as demo, browser(camera) as window:
            desktop = shoot(window, demo.address, folder, DESKTOP, "light")
            phone = shoot(window, demo.address, folder, PHONE, "dark")
        sheet(desktop, phone[0]).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])

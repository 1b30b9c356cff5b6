"""The Webcam tab, measured in a real browser on the same machine, beside Gradio's own streaming image.

python -m benchmarks.bench_webcam [--seconds 30] [--camera-size 288]

A file of 640x480 at 30 frames per second is the camera. Server and browser share the machine, which nothing
else should use. Frames per second are those the browser decoded. Latency is the sum of what browser and
server know of: encoding, the way there and back, the server from arrival to departure, the browser's jitter
buffer, decoding; medians over the time after WARM_SECONDS.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from demos.in_browser import browser, start_demo, write_camera

WARM_SECONDS = 8.0
PARTS = ("encode", "way", "server", "buffer", "decode")
COUNT_IMAGES = """() => {
  window.shown = 0;
  new MutationObserver((all) => { window.shown += all.filter((m) => m.attributeName === 'src').length; })
    .observe(document.querySelector('#after'), { attributes: true, subtree: true, attributeFilter: ['src'] });
}"""


def webcam(window: Any, address: str, seconds: float) -> list[dict[str, float]]:
    """What the page shows, twice a second."""
    page = window.new_context(permissions=["camera"]).new_page()
    page.goto(address)
    page.get_by_role("tab", name="Webcam").click()
    page.get_by_role("button", name="Start camera").click()
    page.wait_for_selector("#webcam .figures[data-fps]", timeout=60_000)
    time.sleep(WARM_SECONDS)
    rows = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        row = page.eval_on_selector("#webcam .figures", "(e) => ({ ...e.dataset })")
        rows.append({key: float(value) for key, value in row.items()})
    page.context.close()
    return rows


def gradio_image(window: Any, camera_size: int, seconds: float) -> float:
    """Frames per second of ``gr.Image(streaming=True)`` with the same model."""
    import gradio as gr  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from banet_stream import Matter, replace_background  # noqa: PLC0415

    matter = Matter(size=camera_size)

    def replace(rgb: np.ndarray) -> np.ndarray:
        return replace_background(rgb, background="#00b140", matter=matter)

    with gr.Blocks(analytics_enabled=False) as page:
        before = gr.Image(sources=["webcam"], streaming=True, type="numpy")
        after = gr.Image(elem_id="after", format="jpeg")
        before.stream(replace, before, after, stream_every=0.03, show_progress="hidden")
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    tab = window.new_context(permissions=["camera"]).new_page()
    tab.goto(address)
    tab.get_by_label("Click to Access Webcam").or_(tab.get_by_text("Click to Access Webcam")).first.click()
    tab.get_by_label("capture photo").click()  # which streams here
    tab.wait_for_selector("#after img", timeout=60_000)
    time.sleep(WARM_SECONDS)
    tab.evaluate(COUNT_IMAGES)
    time.sleep(seconds)
    shown = tab.evaluate("window.shown")
    tab.context.close()
    page.close()
    return float(shown) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--camera-size", type=int, default=288)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        camera = Path(folder) / "camera.mjpeg"
        write_camera(camera)
        with browser(camera) as window:
            size = ("--camera-size", str(options.camera_size))
            with start_demo(Path(folder), *size) as demo:
                rows = webcam(window, demo.address, options.seconds)
            other = gradio_image(window, options.camera_size, options.seconds)
    middle = {key: statistics.median(row[key] for row in rows) for key in ("fps", "latency", *PARTS)}
    slowest = min(row["fps"] for row in rows)
    print(f"{platform.machine()}, 640x480 at 30 fps, network {options.camera_size}, {options.seconds:g} s")
    pace = f"{middle['fps']:.1f} fps (slowest half second {slowest:.1f})"
    print(f"WebRTC: {pace}, {middle['latency']:.0f} ms behind")
    print("  " + ", ".join(f"{part} {middle[part]:.1f} ms" for part in PARTS))
    print(f"Gradio's streaming image: {other:.1f} fps")
    if options.json:
        options.json.write_text(json.dumps({**middle, "slowest_fps": slowest, "gradio_image_fps": other}))


if __name__ == "__main__":
    main()

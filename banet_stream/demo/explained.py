"""The How it works tab: what the network sees in a frame, as pictures."""

from __future__ import annotations

import html

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import Explanation, Matter, explain
from ..errors import BanetStreamError, InputError
from .components import tie_uploads, video_upload
from .sessions import Sessions, write_picture
from .uploads import Limits, check_video, in_words
from .video import frame_at

# The attention map is painted over the darkened frame in this colour.
ATTENTION = (255, 176, 32)
DARKENED = 0.35
# Gradients reach full brightness at this share of the strongest: single hard edges would leave the rest dark.
BRIGHT_PERCENTILE = 99.0

STEPS = (
    ("1. The frame", "What the camera saw. The network sees it this small, and no larger."),
    ("2. Where to look", "The boundary attention map: where it is not sure yet, and looks once more."),
    ("3. Edges", "Sobel gradients: brightness is how sharp an edge is, colour is which way it faces."),
    ("4. The matte", "How much of each pixel is person, brought to full size along the frame's edges."),
    ("5. The result", "The person before another background, without the old one's colour at the edges."),
)
NOTHING_YET = "<p>Choose a moment, press the button, and look inside.</p>"
STAGES = {
    "to input": "Shrinking the frame",
    "network": "The network",
    "composite": "Full size and blending",
}


class ExplainHandlers:
    """What the tab's button calls."""

    def __init__(self, matter: Matter, sessions: Sessions, limits: Limits) -> None:
        self.matter, self.sessions, self.limits = matter, sessions, limits

    def explain_frame(self, video: str | None, moment: float, request: gr.Request) -> tuple[str, ...]:
        """Five pictures and the time each stage took, as HTML, of the frame at ``moment`` percent."""
        session = self.sessions.of(request.session_hash)
        self.sessions.adopt(session, video)
        try:
            if not video:
                raise InputError("Choose a video first: upload one, or take the example.")
            seconds = check_video(video, self.limits)
            rgb = frame_at(video, seconds * min(max(float(moment), 0.0), 100.0) / 100)
            explain(rgb, matter=self.matter)  # once unmeasured: the first one warms caches up
            told = explain(rgb, matter=self.matter, background="blur:80")
            pictures = pictures_of(rgb, told)
            with session.result_folder() as folder:
                paths = [write_picture(folder / f"{name}.jpg", seen) for name, seen in pictures.items()]
        except BanetStreamError as error:
            message = in_words(error, *filter(None, (video,)))
            raise gr.Error(html.escape(message, quote=False), print_exception=False) from error
        return (*paths, timing_html(told))


def pictures_of(rgb: NDArray[np.uint8], told: Explanation) -> dict[str, NDArray[np.uint8]]:
    """One for each of STEPS."""
    return {
        "frame": as_seen(rgb, told),
        "attention": attention_picture(rgb, told),
        "edges": gradient_picture(told),
        "matte": np.asarray(np.round(told.alpha * 255), np.uint8),
        "result": told.result,
    }


def as_seen(rgb: NDArray[np.uint8], told: Explanation) -> NDArray[np.uint8]:
    """The frame at the network's resolution, shown at its own size."""
    height, width = told.boundary.shape
    small = Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.NEAREST))


def attention_picture(rgb: NDArray[np.uint8], told: Explanation) -> NDArray[np.uint8]:
    """[H, W, 3]: the attention map glowing over the darkened frame."""
    height, width = rgb.shape[:2]
    glow = np.asarray(Image.fromarray(told.boundary).resize((width, height), Image.Resampling.BILINEAR))
    glow = np.clip(glow, 0, 1)[..., None]
    painted = rgb * DARKENED * (1 - glow) + np.array(ATTENTION) * glow
    return np.asarray(np.round(painted), np.uint8)


def gradient_picture(told: Explanation) -> NDArray[np.uint8]:
    """[h, w, 3]: hue is the gradient's direction, brightness its magnitude."""
    angle = np.arctan2(told.direction[1], told.direction[0])
    strongest = max(float(np.percentile(told.magnitude, BRIGHT_PERCENTILE)), 1e-6)
    hue = (angle / (2 * np.pi) % 1 * 255).astype(np.uint8)
    value = (np.clip(told.magnitude / strongest, 0, 1) * 255).astype(np.uint8)
    hsv = np.stack([hue, np.full_like(hue, 170), value], 2)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def timing_html(told: Explanation) -> str:
    """Bars: milliseconds of every stage."""
    shown = {words: told.seconds[name] * 1000 for name, words in STAGES.items()}
    longest = max(shown.values())
    rows = "".join(
        f'<tr><th scope="row">{words}</th>'
        f'<td><span class="bar" style="width:{100 * ms / longest:.1f}%"></span></td>'
        f"<td>{ms:.1f} ms</td></tr>"
        for words, ms in shown.items()
    )
    total = sum(shown.values())
    return (
        f'<table class="timing">{rows}</table><p>Together {total:.0f} ms for this frame; '
        "other visitors' work on this machine counts in.</p>"
    )


def explained_tab(handlers: ExplainHandlers, sample: str) -> None:
    """Lays the tab out and connects it."""
    with gr.Row(equal_height=False):
        with gr.Column():
            video = video_upload("A video", value=sample, elem_id="explain-input", height=240)
        with gr.Column():
            moment = gr.Slider(0, 100, 50, step=1, label="Moment, in percent", elem_id="explain-moment")
            run = gr.Button("Show how it works", variant="primary", elem_id="explain-run")
    pictures = []
    with gr.Row(elem_classes="steps"):
        for index, (title, words) in enumerate(STEPS):
            with gr.Column(min_width=260):
                picture = gr.Image(
                    label=title,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id=f"explain-picture-{index}",
                    height=250,
                )
                pictures.append(picture)
                gr.HTML(f"<p>{words}</p>", elem_classes="caption")
        with gr.Column(min_width=260):
            timing = gr.HTML(NOTHING_YET, elem_id="explain-timing", elem_classes="status")
    tie_uploads(handlers.sessions, video)
    run.click(
        handlers.explain_frame,
        [video, moment],
        [*pictures, timing],
        api_name="explain_frame",
        concurrency_limit=1,
        concurrency_id="picture",
    )

"""The choice of a background, the same on every tab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..background import Background, Blur, Picture, Plain, Video
from ..errors import InputError
from .components import picture_upload, video_upload
from .uploads import Limits, check_video, read_picture

LABELS = {
    "picture": "Picture",
    "colour": "Colour",
    "blur": "Blur",
    "video": "Video",
    "transparent": "Transparent",
}
VIDEO_KINDS = tuple(LABELS)
CAMERA_KINDS = ("picture", "colour", "blur", "video")
PHOTO_KINDS = ("transparent", "picture", "colour", "blur")
# Kind, picture, colour, strength of the blur, clip: as the handlers get them.
Chosen = tuple[str, str | None, str | None, float, str | None]
GREEN, DEFAULT_BLUR = "#00b140", 60.0
FIRST_PICTURE = "room.jpg"
# As the colour picker writes them: tiny numbers have an exponent, and alpha means nothing here.
HEX = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", re.IGNORECASE | re.ASCII)
NUMBER = r"\s*(\d+(?:\.\d+)?(?:e-\d+)?)\s*"
RGB = re.compile(rf"rgba?\({NUMBER},{NUMBER},{NUMBER}(?:,{NUMBER})?\)", re.ASCII)


def first_choice(samples: Path) -> Chosen:
    """What the page shows as chosen when it opens, where that begins with a picture."""
    return "picture", str(samples / FIRST_PICTURE), GREEN, DEFAULT_BLUR, None


class Chooser:
    """Components in the order the handlers take them: kind, picture, colour, strength, clip."""

    def __init__(self, kinds: tuple[str, ...], samples: Path, prefix: str) -> None:
        self.kind = gr.Radio(
            [(LABELS[kind], kind) for kind in kinds],
            value=kinds[0],
            label="Background",
            elem_id=f"{prefix}-kind",
            elem_classes="kinds",
        )
        first = kinds[0]
        with gr.Column(visible=first == "picture") as pictures:
            self.picture = picture_upload(
                "Your picture, or one below", value=samples / FIRST_PICTURE, height=180
            )
            gr.Examples(
                [[str(samples / f"{name}.jpg")] for name in ("room", "sunset", "studio", "lights")],
                inputs=[self.picture],
                label="Pictures",
                elem_id=f"{prefix}-pictures",
                api_visibility="private",
            )
        with gr.Column(visible=first == "colour") as colours:
            self.colour = gr.ColorPicker(GREEN, label="Colour", elem_id=f"{prefix}-colour")
        with gr.Column(visible=first == "blur") as blurs:
            self.strength = gr.Slider(
                1, 100, DEFAULT_BLUR, step=1, label="How much", elem_id=f"{prefix}-strength"
            )
        with gr.Column(visible=first == "video") as clips:
            self.clip = video_upload(
                "Your video, or the one given; it repeats", value=samples / "moving-lights.mp4", height=180
            )
        panels = {"picture": pictures, "colour": colours, "blur": blurs, "video": clips}

        def show(kind: str) -> list[gr.Column]:
            return [gr.Column(visible=name == kind) for name in panels]

        self.kind.change(
            show,
            self.kind,
            list(panels.values()),
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

    @property
    def inputs(self) -> list[Any]:
        """For a handler's ``inputs``."""
        return [self.kind, self.picture, self.colour, self.strength, self.clip]

    @property
    def uploads(self) -> tuple[gr.Image, gr.Video]:
        """Where a visitor's own files arrive."""
        return self.picture, self.clip


def open_chosen(chosen: Chosen, limits: Limits) -> Background:
    """The background a visitor chose; ``transparent`` is none, and the caller's.

    Raises:
        InputError, BackgroundError: in words for the visitor.
    """
    kind, picture, colour, strength, clip = chosen
    if kind == "blur":
        return Blur(float(strength))
    if kind == "colour":
        return Plain(rgb_of_colour(colour))
    if kind == "picture":
        if not picture:
            raise InputError("Choose a background picture first: one of the examples, or your own.")
        return Picture(Image.fromarray(read_picture(picture, limits)))
    if kind == "video":
        if not clip:
            raise InputError("Choose a background video first: the example, or your own.")
        check_video(clip, limits)
        return Video(clip)
    raise InputError(f"The background must be one of {', '.join(LABELS)}.")


def rgb_of_colour(text: str | None) -> tuple[int, int, int]:
    """``#00b140`` as the colour picker writes it, or ``rgba(0, 177, 64, 1)``, its other way.

    Raises:
        InputError: for anything else.
    """
    if not text:
        raise InputError("Choose a colour first.")
    if found := HEX.fullmatch(text):
        red, green, blue = (int(part, 16) for part in found.groups())
        return red, green, blue
    found = RGB.fullmatch(text)
    values = [float(part) for part in found.groups()[:3]] if found else []
    if not values or max(values) > 255:
        raise InputError("A colour is written like #00b140, or rgb(0, 177, 64) with numbers from 0 to 255.")
    red, green, blue = map(round, values)
    return red, green, blue

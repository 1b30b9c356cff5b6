"""The Photo tab: a picture in, the person cut out or before another background."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import Matter, cut_out, replace_background
from ..errors import BanetStreamError, InputError
from .chooser import PHOTO_KINDS, Chooser, open_chosen
from .components import picture_upload, tie_uploads
from .sessions import Sessions, write_picture
from .uploads import Limits, in_words, read_picture

# What stands for nothing: squares of two greys, this many pixels wide on a picture of 1000.
SQUARE_SHARE = 0.02
LIGHT, DARK = 238, 205


class PhotoHandlers:
    """What the tab's button calls."""

    def __init__(self, matter: Matter, sessions: Sessions, limits: Limits) -> None:
        self.matter, self.sessions, self.limits = matter, sessions, limits

    def cut_out_photo(
        self,
        photo: str | None,
        kind: str,
        picture: str | None,
        colour: str | None,
        strength: float,
        clip: str | None,
        request: gr.Request,
    ) -> tuple[Any, str]:
        """The photo with another background, or with none.

        Returns the pair before and after (squares stand for nothing), and a PNG; it has alpha (straight)
        where the background is ``transparent``.
        """
        session = self.sessions.of(request.session_hash)
        self.sessions.adopt(session, photo, picture, clip)
        try:
            if not photo:
                raise InputError("Choose a photo first: drop one, or take the example.")
            rgb = read_picture(photo, self.limits)
            if kind == "transparent":
                result = cut_out(rgb, matter=self.matter)
                shown = over_squares(result)
            else:
                behind = open_chosen((kind, picture, colour, strength, clip), self.limits)
                shown = result = replace_background(rgb, background=behind, matter=self.matter)
            with session.result_folder() as folder:
                path = folder / f"{Path(photo).stem}-{kind}.png"
                Image.fromarray(result).save(path)
                pair = write_picture(folder / "before.jpg", rgb), write_picture(folder / "after.jpg", shown)
        except BanetStreamError as error:
            message = in_words(error, *filter(None, (photo, picture, clip)))
            raise gr.Error(html.escape(message, quote=False), print_exception=False) from error
        return pair, str(path)


def over_squares(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 4] with straight alpha -> [H, W, 3] over grey squares."""
    height, width = rgba.shape[:2]
    side = max(4, round(max(height, width) * SQUARE_SHARE))
    odd = (np.arange(height)[:, None] // side + np.arange(width) // side) % 2
    squares = np.where(odd, DARK, LIGHT)[..., None].astype(np.float32)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.asarray(np.round(rgba[..., :3] * alpha + squares * (1 - alpha)), np.uint8)


def photo_tab(handlers: PhotoHandlers, samples: Path) -> None:
    """Lays the tab out and connects it."""
    with gr.Row(equal_height=False):
        with gr.Column():
            photo = picture_upload("Your photo", elem_id="photo-input", height=300)
            gr.Examples(
                [[str(samples / "portrait.jpg")]],
                inputs=[photo],
                label="No photo at hand? Take this one",
                elem_id="photo-examples",
                api_visibility="private",
            )
            chooser = Chooser(PHOTO_KINDS, samples, "photo")
            run = gr.Button("Cut out", variant="primary", elem_id="photo-run")
        with gr.Column():
            pair = gr.ImageSlider(
                label="Before and after", interactive=False, elem_id="photo-pair", buttons=["fullscreen"]
            )
            file = gr.File(label="Download", interactive=False, elem_id="photo-file")
    tie_uploads(handlers.sessions, photo, *chooser.uploads)
    run.click(
        handlers.cut_out_photo,
        [photo, *chooser.inputs],
        [pair, file],
        api_name="cut_out_photo",
        concurrency_limit=1,
        concurrency_id="picture",
    )

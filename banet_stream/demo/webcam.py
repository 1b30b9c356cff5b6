"""The Webcam tab: who may be live, and before which background."""

from __future__ import annotations

import html
import logging
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from ..background import Background, Blur
from ..errors import BanetStreamError
from ..matting import Matter
from .camera import Camera
from .chooser import CAMERA_KINDS, Chooser, Chosen, open_chosen
from .components import tie_uploads
from .sessions import Sessions
from .uploads import Limits, in_words

log = logging.getLogger(__name__)


class Cameras:
    """All live connections: one for each open page, and no more than the limit."""

    def __init__(self, matter: Matter, sessions: Sessions, limits: Limits, first: Chosen) -> None:
        self.matter, self.sessions, self.limits, self.first = matter, sessions, limits, first
        self.live: dict[str, Camera] = {}
        self.chosen: dict[str, Chosen] = {}

    async def offer(self, data: Any) -> dict[str, str]:
        """Called by the page's script with ``session`` and ``sdp``; answers with ``sdp`` or ``error``."""
        if not isinstance(data, dict):
            return {"error": "An offer holds session and sdp."}
        key, sdp = str(data.get("session") or ""), str(data.get("sdp") or "")
        if not key:
            return {"error": "The page is not ready yet; reload it."}
        if key in self.live:
            await self.live[key].close()
        if len(self.live) >= self.limits.cameras:
            return {"error": f"All {self.limits.cameras} live places are taken; try again in a while."}
        session, live = self.sessions.of(key), threading.Event()

        def closed() -> None:
            session.end(live)
            self.forget(key, camera)

        camera = Camera(self.matter, self.open_background(key), closed)
        self.live[key] = camera
        session.begin(live)  # an hour before the camera is not an idle one
        try:
            return {"sdp": await camera.answer(sdp)}
        except Exception:  # aiortc raises many kinds for an offer that is none
            log.info("a WebRTC offer was refused", exc_info=True)
            await camera.close()
            return {"error": "The browser's offer could not be understood."}

    def open_background(self, key: str) -> Background:
        """What the page chose last, or a blur where that can't be opened any more."""
        try:
            return open_chosen(self.chosen.get(key, self.first), self.limits)
        except BanetStreamError:
            return Blur()

    def forget(self, key: str, camera: Camera) -> None:
        if self.live.get(key) is camera:
            del self.live[key]

    def change_background(
        self,
        kind: str,
        picture: str | None,
        colour: str | None,
        strength: float,
        clip: str | None,
        request: gr.Request,
    ) -> str:
        """From the next frame on; returns what to say, which is nothing when all is well."""
        key = request.session_hash or ""
        session = self.sessions.of(key)
        self.sessions.adopt(session, picture, clip)
        chosen = (kind, picture, colour, strength, clip)
        try:
            background = open_chosen(chosen, self.limits)
        except BanetStreamError as error:
            words = in_words(error, *filter(None, (picture, clip)))
            return f'<p class="bad">{html.escape(words)}</p>'
        self.chosen[key] = chosen
        if key in self.live:
            self.live[key].switch.change(background)
        else:
            background.close()
        return ""

    async def leave(self, key: str | None) -> None:
        """The page was closed."""
        self.chosen.pop(key or "", None)
        camera = self.live.get(key or "")
        if camera is not None:
            await camera.close()


HERE = Path(__file__).parent
TEMPLATE = (HERE / "webcam.html").read_text()
SCRIPT = (HERE / "webcam.js").read_text()


def webcam_tab(cameras: Cameras, samples: Path) -> gr.HTML:
    """Lays the tab out and connects it; returns the component that wants the page's session."""

    async def offer(data: Any) -> dict[str, str]:  # Gradio marks it, which a method can't be
        return await cameras.offer(data)

    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            view = gr.HTML(
                html_template=TEMPLATE,
                js_on_load=SCRIPT,
                server_functions=[offer],
                elem_id="webcam",
                session="",
            )
        with gr.Column(scale=2):
            chooser = Chooser(CAMERA_KINDS, samples, "webcam")
            said = gr.HTML("", elem_id="webcam-said", elem_classes="status")
    tie_uploads(cameras.sessions, *chooser.uploads)
    gr.on(
        [component.change for component in chooser.inputs],
        cameras.change_background,
        chooser.inputs,
        said,
        queue=False,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    return view

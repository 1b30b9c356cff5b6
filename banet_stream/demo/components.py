"""Gradio's components, made safe for strangers: they open no address and decode no picture unasked.

Guards are put on instances: beside a subclass's source file Gradio would write another file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import Component
from gradio_client.utils import is_http_url_like

from .sessions import Sessions
from .uploads import PICTURE_EXTENSIONS, PICTURE_KINDS, VIDEO_EXTENSIONS, VIDEO_KINDS


def video_upload(label: str, **options: Any) -> gr.Video:
    """An uploaded video, as a path."""
    component = gr.Video(label=label, sources=["upload"], buttons=[], **options)
    guard(component, VIDEO_EXTENSIONS, VIDEO_KINDS)
    return component


def picture_upload(label: str, **options: Any) -> gr.Image:
    """An uploaded picture, as a path; not decoded, which the handlers do with limits and in words."""
    component = gr.Image(label=label, sources=["upload", "clipboard"], type="filepath", buttons=[], **options)
    guard(component, PICTURE_EXTENSIONS, PICTURE_KINDS)
    return component


def tie_uploads(sessions: Sessions, *components: gr.Image | gr.Video) -> None:
    """What is uploaded belongs to its page as soon as it is there, and goes with it, used or not."""

    def arrive(path: str | None, request: gr.Request) -> None:
        sessions.adopt(sessions.of(request.session_hash), path)

    for component in components:
        component.upload(
            arrive, component, None, queue=False, show_progress="hidden", api_visibility="private"
        )


def guard(component: Component, extensions: list[str], kinds: str) -> None:
    """Lets files in by name, whose content is checked later, and nothing else; they arrive as paths."""
    fetch = component.async_move_resource_to_block_cache

    async def refuse_address(url_or_file_path: str | Path | None) -> str | None:
        # Gradio would download it: a visitor must not make the server fetch things.
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            raise gr.Error("This page opens no addresses. Upload the file itself.", print_exception=False)
        return await fetch(url_or_file_path)

    def path_of(payload: Any) -> str | None:
        if payload is None:
            return None
        name = Path(payload.path or "").name
        if Path(name).suffix.lower() not in extensions:
            raise gr.Error(f"{name} is not accepted. This page takes {kinds}.", print_exception=False)
        return str(payload.path)

    component.async_move_resource_to_block_cache = refuse_address  # type: ignore[method-assign]
    component.preprocess = path_of  # type: ignore[method-assign]

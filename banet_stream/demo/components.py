"""Gradio's components, made safe for strangers: they open no address and decode no picture unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like

from .uploads import PICTURE_EXTENSIONS, PICTURE_KINDS, VIDEO_EXTENSIONS, VIDEO_KINDS


def refuse_address(path: str | Path | None) -> None:
    """Gradio would download it: a visitor must not make the server fetch things.

    Raises:
        gradio.Error: for anything but a file.
    """
    if path is not None and is_http_url_like(str(path)):
        raise gr.Error("This page opens no addresses. Upload the file itself.", print_exception=False)


def refuse_kind(path: str | None, extensions: list[str], kinds: str) -> None:
    """By name, before anything is opened; the content is checked later.

    Raises:
        gradio.Error: naming what is accepted.
    """
    if path is not None and Path(path).suffix.lower() not in extensions:
        raise gr.Error(f"{Path(path).name} is not accepted. This page takes {kinds}.", print_exception=False)


class VideoUpload(gr.Video):
    """An uploaded video, as a path."""

    is_template = True  # the browser's part is gr.Video's

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """See gr.Video."""
        refuse_address(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)

    def preprocess(self, payload: Any) -> str | None:
        """See gr.Video."""
        path: str | None = super().preprocess(payload)
        refuse_kind(path, VIDEO_EXTENSIONS, VIDEO_KINDS)
        return path


class PictureUpload(gr.Image):
    """An uploaded picture, as a path."""

    is_template = True

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """See gr.Image."""
        refuse_address(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)

    def preprocess(self, payload: Any) -> str | None:
        """The path; gr.Image would decode and write the picture anew."""
        path = None if payload is None else payload.path
        refuse_kind(path, PICTURE_EXTENSIONS, PICTURE_KINDS)
        return path


def video_upload(label: str, **options: Any) -> VideoUpload:
    return VideoUpload(label=label, sources=["upload"], buttons=[], **options)


def picture_upload(label: str, **options: Any) -> PictureUpload:
    return PictureUpload(label=label, sources=["upload", "clipboard"], type="filepath", buttons=[], **options)

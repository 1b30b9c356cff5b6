"""The page: tabs, looks, and the one model behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from .. import Matter, __version__
from .chooser import first_choice
from .explained import ExplainHandlers, explained_tab
from .photo import PhotoHandlers, photo_tab
from .sessions import Sessions
from .sharing import share
from .uploads import Limits
from .video import VideoHandlers, video_tab
from .webcam import Cameras, webcam_tab

# Requests waiting at once; one more is told to come back later.
QUEUE_LENGTH = 16
# Fonts of the visitor's own system: Gradio's themes would ask an outside host for theirs.
FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]
MONOSPACE = ["ui-monospace", "monospace"]
STYLE = Path(__file__).parent / "style.css"
TITLE = "banet-stream: another background"
HEADER = """
<h1>Put any background behind you</h1>
<p>For videos, photos and your live camera. The computer that serves this page does the work;
nothing goes anywhere else, and nothing is kept.</p>
"""


API_LINK = '<a href="?view=api">use it from a program</a>'


def theme() -> gr.themes.Base:
    """Calm greys, one strong colour."""
    return gr.themes.Soft(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE, radius_size="lg"
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        # Gradio's own subdued grey is too faint on white to be read.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        body_background_fill="*neutral_50",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_label_background_fill="*background_fill_primary",
        block_label_background_fill_dark="*background_fill_secondary",
        block_title_background_fill_dark="none",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="*neutral_200",
        checkbox_label_border_color_dark="*neutral_700",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_background_fill="none",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_padding="0",
        slider_color="*primary_600",
    )


def build(
    matter: Matter, *, samples: Path, sessions: Sessions, limits: Limits, camera_size: int
) -> gr.Blocks:
    """The page.

    Args:
        matter: for videos, photos and How it works.
        samples: the folder that ``samples.write_all`` filled.
        sessions: below Gradio's upload folder.
        limits: of one visitor.
        camera_size: ``size`` of Matter for a live camera's frames.
    """
    shared = share(matter)
    cameras = Cameras(shared.at_size(camera_size), sessions, limits, first_choice(samples))
    page: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as page:
        gr.HTML(HEADER, elem_id="header")
        with gr.Tabs():
            with gr.Tab("Video", id="video"):
                video_tab(VideoHandlers(shared, sessions, limits), samples)
                gr.HTML(f"<p>Videos {limits.words}.</p>", elem_classes="caption")
            with gr.Tab("Webcam", id="webcam"):
                view = webcam_tab(cameras, samples)
            with gr.Tab("Photo", id="photo"):
                photo_tab(PhotoHandlers(shared, sessions, limits), samples)
            with gr.Tab("How it works", id="explain"):
                explained_tab(ExplainHandlers(shared, sessions, limits), str(samples / "clip.mp4"))
        parts = (shared.description, API_LINK, f"banet-stream {__version__}")
        gr.HTML(f"<p>{' &middot; '.join(parts)}</p>", elem_id="footer")

        def arrive(request: gr.Request) -> gr.HTML:
            return gr.HTML(session=request.session_hash)

        async def leave(request: gr.Request) -> None:
            await cameras.leave(request.session_hash)
            sessions.close(request.session_hash)

        page.load(arrive, None, view, queue=False, show_progress="hidden", api_visibility="private")
        page.unload(leave)
    page.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=4)
    return page


def launch(page: gr.Blocks, *, limits: Limits, **options: Any) -> str:
    """Starts the server in threads of its own; returns the local address. ``options`` are Gradio's."""
    _, address, _ = page.launch(
        theme=theme(),
        css=STYLE.read_text(),
        max_file_size=limits.upload_mb * 1_000_000,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,  # the handlers' own words arrive; what a bug says could hold the server's paths
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        **options,
    )
    return address

"""The Video tab: a video in, the same with another background out."""

from __future__ import annotations

import glob
import html
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from .. import EncodeOptions, Matter, Progress, Summary, process
from ..decode import Source, decode
from ..errors import BanetStreamError, IncompleteInput, InputError, Interrupted
from ..frame import Frame, nearest_format, rgb_of
from .chooser import VIDEO_KINDS, Chooser, Chosen, open_chosen
from .components import tie_uploads, video_upload
from .sessions import Sessions, write_picture
from .uploads import Limits, check_video, in_words

# How often the page hears of the progress.
REPORT_SECONDS = 0.3
# Every browser plays 8-bit 4:2:0 H.264; what has more than that becomes VP9 in WebM, which most play.
PLAYABLE = "yuv420p"
READY = "<p>Choose a video and a background, then press <b>Replace background</b>.</p>"


@dataclass
class Job:
    """One video on its way, in a thread of its own; the newest progress is all that is kept of it."""

    source: str
    output: Path
    background: Any
    matter: Matter
    most_frames: int
    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    latest: Progress | None = None
    summary: Summary | None = None
    error: BaseException | None = None
    too_long: bool = False

    def run(self) -> None:
        """The thread; whatever happens, a file that is not finished goes."""
        try:
            self.summary = process(
                self.source,
                self.output,
                background=self.background,
                matter=self.matter,
                encoding=EncodeOptions(),
                progress=self.note,
                stop=self.stop,
            )
        except IncompleteInput as error:
            self.summary, self.error = error.summary, error
        except BaseException as error:
            self.error = error
        finally:
            if self.summary is None:
                for leftover in self.output.parent.glob(f"{glob.escape(self.output.stem)}.*"):
                    leftover.unlink(missing_ok=True)
            if hasattr(self.background, "close"):
                self.background.close()
            self.done.set()

    def note(self, now: Progress) -> None:
        """Keeps the newest; stops what is longer than its header said."""
        self.latest = now
        if now.frames > self.most_frames:
            self.too_long = True
            self.stop.set()


class VideoHandlers:
    """What the tab's buttons call."""

    def __init__(self, matter: Matter, sessions: Sessions, limits: Limits) -> None:
        self.matter, self.sessions, self.limits = matter, sessions, limits

    def replace_video(
        self,
        video: str | None,
        kind: str,
        picture: str | None,
        colour: str | None,
        strength: float,
        clip: str | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any, Any]]:
        """The video with another background.

        Yields the status as HTML, the result, and its middle frame before and after.
        """
        session = self.sessions.of(request.session_hash)
        self.sessions.adopt(session, video, picture, clip)
        try:
            with session.result_folder() as folder:
                job = self.prepare(folder, video, (kind, picture, colour, strength, clip))
                session.begin(job.stop)
                try:
                    yield from self.follow(job)
                finally:
                    job.stop.set()  # to a finished job it is nothing; to one whose visitor has gone, the end
                    session.end(job.stop)
                told = self.finished(job)
            yield told
        except BanetStreamError as error:
            message = in_words(error, *filter(None, (video, picture, clip)))
            yield error_html(message), None, None
            raise gr.Error(html.escape(message, quote=False), print_exception=False) from error

    def follow(self, job: Job) -> Iterator[tuple[Any, Any, Any]]:
        """Runs it to its end; yields the status as HTML."""
        thread = threading.Thread(target=job.run, name="banet-demo-video", daemon=True)
        thread.start()
        while not job.done.wait(REPORT_SECONDS):
            yield progress_html(job.latest), gr.skip(), gr.skip()
        thread.join()

    def prepare(self, folder: Path, video: str | None, chosen: Chosen) -> Job:
        """A job that can be started.

        Raises:
            InputError, BackgroundError: in words for the visitor.
        """
        if not video:
            raise InputError("Choose a video first: upload one, or take the example.")
        check_video(video, self.limits)
        kind = chosen[0]
        transparent = kind == "transparent"
        background = "transparent" if transparent else open_chosen(chosen, self.limits)
        suffix = ".mp4" if is_playable(video) and not transparent else ".webm"
        output = folder / f"{Path(video).stem}-{kind}{suffix}"
        return Job(video, output, background, self.matter, self.limits.frames)

    def finished(self, job: Job) -> tuple[Any, Any, Any]:
        """Status, video and the pair of stills; raises what went wrong."""
        if job.too_long:
            raise InputError(
                f"{Path(job.source).name} has more than {job.most_frames} frames, this page's limit."
            )
        if isinstance(job.error, Interrupted):
            return stopped_html(), None, None
        if job.summary is None:
            assert job.error is not None
            raise job.error
        summary, seconds = job.summary, middle_of(job.output)  # the source may be cut off before its own
        pair = (
            write_picture(job.output.with_name("before.jpg"), frame_at(job.source, seconds)),
            write_picture(job.output.with_name("after.jpg"), frame_at(job.output, seconds)),
        )
        notices = list(summary.notices)
        if job.error is not None:
            notices.append("the file was cut off or damaged; this is what could be read")
        return finished_html(summary, notices), str(job.output), pair

    def cancel(self, request: gr.Request) -> str:
        """Stops the visitor's video."""
        session = self.sessions.find(request.session_hash)
        if session is not None:
            session.stop()
        return stopped_html()


def is_playable(path: str) -> bool:
    """Whether H.264 made from it is what every browser plays."""
    with closing(Source(path)) as source:
        return nearest_format(source.video.pix_fmt or PLAYABLE).name == PLAYABLE


def middle_of(path: Path) -> float:
    with closing(Source(path)) as source:
        return (source.info.duration_seconds or 0.0) / 2


def frame_at(path: str | Path, seconds: float) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: the frame shown at ``seconds``, or at the end the last one, or the first where it is cut
    off before.

    Raises:
        InputError: when no frame can be decoded.
    """
    shown = next(frames_from(path, seconds), None)
    if shown is None:
        before = deque(frames_from(path, max(0.0, seconds - 1)), maxlen=1)
        shown = before[0] if before else next(frames_from(path, 0.0), None)
    if shown is None:
        raise InputError(f"{Path(path).name} holds no frame that can be decoded.")
    return shown


def frames_from(path: str | Path, seconds: float) -> Iterator[NDArray[np.uint8]]:
    """[H, W, 3] RGB each; none where it ends before."""
    with suppress(InputError), closing(Source(path, start_seconds=seconds, audio=False)) as source:
        for item in decode(source):
            if isinstance(item, Frame):
                yield rgb_of(item)


# --- words -------------------------------------------------------------------------------------


def progress_html(now: Progress | None) -> str:
    if now is None:
        return '<progress aria-label="progress"></progress><p>Starting&hellip;</p>'
    pace = f"{now.fps:.1f} frames per second"
    if not now.expected_frames:
        return f'<progress aria-label="progress"></progress><p>{now.frames} frames, {pace}</p>'
    left = max(0, now.expected_frames - now.frames)
    words = f"{now.frames} of {now.expected_frames} frames, {pace}, {left / max(now.fps, 0.01):.0f} s left"
    bar = f'<progress aria-label="progress" value="{now.frames}" max="{now.expected_frames}"></progress>'
    return f"{bar}<p>{words}</p>"


def finished_html(summary: Summary, notices: list[str]) -> str:
    words = f"Done: {summary.frames} frames in {summary.seconds:.1f} s, {summary.fps:.1f} frames per second."
    notes = "".join(f"<li>{html.escape(notice)}</li>" for notice in notices)
    return f'<p class="good">{words}</p>' + (f"<ul>{notes}</ul>" if notes else "")


def stopped_html() -> str:
    return "<p>Cancelled. Nothing was kept.</p>"


def error_html(message: str) -> str:
    return f'<p class="bad">{html.escape(message)}</p>'


# --- the tab -----------------------------------------------------------------------------------


def video_tab(handlers: VideoHandlers, samples: Path) -> None:
    """Lays the tab out and connects it."""
    with gr.Row(equal_height=False):
        with gr.Column():
            video = video_upload("Your video", elem_id="video-input", height=300)
            gr.Examples(
                [[str(samples / "clip.mp4")]],
                inputs=[video],
                label="No video at hand? Take this one",
                elem_id="video-examples",
                api_visibility="private",
            )
            chooser = Chooser(VIDEO_KINDS, samples, "video")
            with gr.Row():
                run = gr.Button("Replace background", variant="primary", elem_id="video-run")
                cancel = gr.Button("Cancel", interactive=False, elem_id="video-cancel")
        with gr.Column():
            status = gr.HTML(READY, elem_id="video-status", elem_classes="status", padding=True)
            with gr.Column(visible=False) as results:
                result = gr.Video(
                    label="Result",
                    interactive=False,
                    buttons=["download"],
                    elem_id="video-result",
                    height=300,
                )
                together = gr.Button("Play both together", size="sm", elem_id="video-together")
                pair = gr.ImageSlider(
                    label="Before and after", interactive=False, elem_id="video-pair", buttons=["fullscreen"]
                )
    tie_uploads(handlers.sessions, video, *chooser.uploads)
    hidden: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    parts = [run, cancel, results]

    def begin() -> tuple[Any, ...]:
        return gr.Button(interactive=False), gr.Button(interactive=True), gr.Column(visible=False)

    def end(finished: str | None) -> tuple[Any, ...]:
        return gr.Button(interactive=True), gr.Button(interactive=False), gr.Column(visible=bool(finished))

    job = run.click(begin, None, parts, **hidden).then(
        handlers.replace_video,
        [video, *chooser.inputs],
        [status, result, pair],
        api_name="replace_video",
        concurrency_limit=1,
        concurrency_id="video",
        show_progress="minimal",
        show_progress_on=status,
    )
    # `then` alone is not called when a generator fails after its first words.
    job.success(end, result, parts, **hidden)
    job.failure(end, result, parts, **hidden)
    cancel.click(handlers.cancel, None, status, cancels=[job], **hidden).then(end, result, parts, **hidden)
    together.click(None, js=PLAY_TOGETHER, api_visibility="private")


PLAY_TOGETHER = """() => {
  const both = ['video-input', 'video-result'].map(id => document.querySelector(`#${id} video`));
  if (both.some(video => !video)) return;
  for (const video of both) { video.currentTime = 0; video.muted = video === both[0]; }
  for (const video of both) video.play();
}"""

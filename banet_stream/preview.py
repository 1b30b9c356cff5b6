"""The preview: a window with the result, in Python's own toolkit."""

from __future__ import annotations

import threading
from typing import Any

from .errors import OutputError
from .frame import rgb_of
from .live_source import LiveFrame

# The window is drawn at most this large; larger pictures are halved until they fit.
LARGEST_SIDE = 1280


class Preview:
    """A window that shows the newest frame. All but ``watch`` belong to the thread that made it.

    Args:
        toolkit: the module tkinter.
        stop: set when the window is closed.
    """

    def __init__(self, toolkit: Any, stop: threading.Event) -> None:
        self._toolkit, self._stop = toolkit, stop
        self._window = toolkit.Tk()
        self._window.title("banet-stream")
        self._window.protocol("WM_DELETE_WINDOW", stop.set)
        self._label = toolkit.Label(self._window, borderwidth=0)
        self._label.pack()
        self._newest: LiveFrame | None = None
        self._picture: Any = None
        self.drawn = 0

    def watch(self, frame: LiveFrame) -> None:
        """Takes the next frame to draw; from any thread."""
        self._newest = frame

    def draw(self) -> None:
        """Draws what is new and lets the window answer to its user."""
        frame, self._newest = self._newest, None
        if frame is not None:
            rgb = rgb_of(frame)
            step = 1
            while max(rgb.shape[:2]) // step > LARGEST_SIDE:
                step *= 2
            rgb = rgb[::step, ::step]
            header = b"P6 %d %d 255\n" % (rgb.shape[1], rgb.shape[0])
            self._picture = self._toolkit.PhotoImage(data=header + rgb.tobytes(), format="PPM")
            self._label.configure(image=self._picture)
            self.drawn += 1
        self._window.update()

    def close(self) -> None:
        """Closes the window."""
        self._picture = None
        self._window.destroy()


def open_preview(stop: threading.Event) -> Preview:
    """The window.

    Raises:
        OutputError: where there is no screen or no toolkit, with what to do instead.
    """
    try:
        import tkinter  # noqa: PLC0415  (only where a window is asked for)
    except ImportError as error:
        raise OutputError(
            "--preview: this Python has no tkinter (on Debian: apt install python3-tk); "
            "without a window, --stats prints figures"
        ) from error
    try:
        return Preview(tkinter, stop)
    except tkinter.TclError as error:
        raise OutputError(
            f"--preview: no window can be opened here ({error}); --stats prints figures instead"
        ) from error

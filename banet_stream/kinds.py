"""What INPUT and OUTPUT are, told by their looks: the one place that decides."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from .errors import InputError, OutputError
from .opening import STANDARD, is_url
from .output import check_place
from .redact import redact

VIRTUAL_CAMERA_WORD, WEBCAM_WORD = "virtual-camera", "webcam"
DEVICES = Path("/dev")
# Players start this many seconds of HLS behind the end; each segment begins with a key frame.
HLS_SEGMENT_SECONDS, HLS_SEGMENTS = 2, 6
# FFmpeg reorders UDP packets for at most this long.
UDP_REORDER_MICROSECONDS = 200_000


class Kind(Enum):
    """What a place is."""

    FILE = "file"
    HTTP = "HTTP"
    HLS = "HLS"
    RTSP = "RTSP"
    RTMP = "RTMP"
    SRT = "SRT"
    STREAM = "network stream"  # UDP, RTP, TCP
    WEBCAM = "webcam"
    LAVFI = "test source"
    VIRTUAL_CAMERA = "virtual camera"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class Place:
    """Where pictures come from or go to, as FFmpeg is told."""

    kind: Kind
    url: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: without credentials."""
        return redact(self.url)


SCHEMES = {
    "rtsp": Kind.RTSP,
    "rtsps": Kind.RTSP,
    "rtmp": Kind.RTMP,
    "rtmps": Kind.RTMP,
    "srt": Kind.SRT,
    "udp": Kind.STREAM,
    "rtp": Kind.STREAM,
    "tcp": Kind.STREAM,
    "http": Kind.HTTP,
    "https": Kind.HTTP,
}
# A file or an HTTP address may be a recording; whatever else comes in comes now or never.
RECORDED = (Kind.FILE, Kind.HTTP)
LIVE_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mkv": "matroska", ".ts": "mpegts"}
# Players and a crash find a whole file up to its last second.
LIVE_FILE_OPTIONS = {
    "mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"},
    "matroska": {"cluster_time_limit": "1000"},
    "mpegts": {},
}


def input_kind(text: str) -> Kind:
    """What INPUT is: a URL by its scheme, a webcam by word or number, else a file."""
    if text == WEBCAM_WORD or re.fullmatch(r"\d+", text) or text.startswith(f"{DEVICES}/video"):
        return Kind.WEBCAM
    if text.startswith("lavfi:"):
        return Kind.LAVFI
    if not is_url(text):
        return Kind.FILE
    kind = SCHEMES.get(text.partition("://")[0].lower(), Kind.HTTP)
    if kind is Kind.HTTP and text.partition("?")[0].lower().endswith(".m3u8"):
        return Kind.HLS
    return kind


def output_kind(text: str | None) -> Kind:
    """What OUTPUT is; None is nowhere: a preview only."""
    if text is None:
        return Kind.NOWHERE
    if text == VIRTUAL_CAMERA_WORD or text.startswith(f"{DEVICES}/video"):
        return Kind.VIRTUAL_CAMERA
    if is_url(text):
        return SCHEMES.get(text.partition("://")[0].lower(), Kind.HTTP)
    if text.lower().endswith(".m3u8") or text.endswith(os.sep):
        return Kind.HLS
    return Kind.FILE


def is_live(source: str, output: str | None, *, realtime: bool = False) -> bool:
    """Whether INPUT and OUTPUT are processed live: frames come and go at their time, or not at all."""
    if realtime or input_kind(source) not in RECORDED:
        return True
    return output_kind(output) is not Kind.FILE


def input_place(
    text: str,
    *,
    rtsp_transport: str = "tcp",
    camera_size: str | None = None,
    camera_fps: float | None = None,
    camera_format: str | None = None,
) -> Place:
    """How FFmpeg opens INPUT.

    Raises:
        InputError: when there is no webcam, or INPUT is standard input.
    """
    if text == STANDARD:
        raise InputError("-: standard input can't be played live; give a file, a URL or a webcam")
    kind = input_kind(text)
    if kind is Kind.WEBCAM:
        wanted = {
            "video_size": camera_size,
            "framerate": None if camera_fps is None else f"{camera_fps:g}",
            "input_format": {None: None, "mjpeg": "mjpeg", "yuyv": "yuyv422"}[camera_format],
        }
        return Place(kind, camera_device(text), "v4l2", {k: v for k, v in wanted.items() if v})
    if kind is Kind.LAVFI:
        return Place(kind, text.removeprefix("lavfi:"), "lavfi")
    if kind is Kind.FILE:
        return Place(kind, text)
    if kind is Kind.HTTP:
        return Place(kind, text)
    # What was read to find out what it is, is old by then. (A short recording would be gone with it.)
    options = {"fflags": "nobuffer"}
    if kind is Kind.RTSP:
        options |= {"rtsp_transport": rtsp_transport, "max_delay": str(UDP_REORDER_MICROSECONDS)}
    if kind in (Kind.SRT, Kind.STREAM):
        # A sender that starts anew may number its streams anew; PyAV sees only those there were at first.
        options["merge_pmt_versions"] = "1"
    if kind is Kind.HLS:
        options = {"live_start_index": "-1"}
    return Place(kind, text, None, options)


def camera_device(text: str) -> str:
    """``/dev/videoN`` of ``webcam`` (the first there is), ``N`` or itself."""
    if text.isdigit():
        text = f"{DEVICES}/video{text}"
    here = sorted((str(p) for p in DEVICES.glob("video[0-9]*")), key=lambda p: (len(p), p))
    if text == WEBCAM_WORD:
        if not here:
            raise InputError(f"{text}: no webcam on this machine (there is no {DEVICES}/video*)")
        return here[0]
    if text not in here:
        found = f"there are {', '.join(here)}" if here else f"there is no {DEVICES}/video* at all"
        raise InputError(f"{text}: no such webcam; {found}")
    return text


def output_place(text: str | None, *, rtsp_transport: str = "tcp", overwrite: bool = False) -> Place:
    """How FFmpeg is told to write OUTPUT live.

    Raises:
        OutputError: when it can't become a live output, before anything is opened.
    """
    kind = output_kind(text)
    if text is None:
        return Place(kind, "nowhere")
    served = {
        Kind.RTSP: ("rtsp", {"rtsp_transport": rtsp_transport}),
        Kind.RTMP: ("flv", {"flvflags": "no_duration_filesize"}),
        Kind.SRT: ("mpegts", {}),
        Kind.STREAM: ("mpegts", {}),
    }
    if kind in served:
        return Place(kind, text, *served[kind])
    if kind is Kind.HTTP:
        raise OutputError(
            f"{redact(text)}: can't be published to; OUTPUT is rtsp://, rtmp://, an HLS folder or a file"
        )
    if kind is Kind.HLS:
        return hls_place(text)
    if kind is Kind.FILE:
        return file_place(Path(text), overwrite=overwrite)
    return Place(kind, text)


def hls_place(text: str) -> Place:
    """A playlist ``FOLDER/NAME.m3u8``, or ``FOLDER/`` for its index.m3u8.

    Raises:
        OutputError: when it can't be written there.
    """
    playlist = Path(text) / "index.m3u8" if text.endswith(os.sep) else Path(text)
    try:
        playlist.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{playlist.parent}: can't be made a folder for HLS ({error.strerror})") from error
    if playlist.is_dir():
        raise OutputError(f"{playlist}: is a directory; end it with / to write HLS into it")
    check_place(playlist, overwrite=True)
    # FFmpeg reads a % as the segment's number wherever in the path it stands: the relay works in the folder.
    stem = playlist.stem.replace("%", "_")
    options = {
        "hls_time": str(HLS_SEGMENT_SECONDS),
        "hls_list_size": str(HLS_SEGMENTS),
        "hls_flags": "delete_segments+independent_segments",
        "hls_segment_filename": f"file:./{stem}-%06d.ts",
        # Numbers that no earlier run used: a player that is still there must not mistake old for new.
        "hls_start_number_source": "epoch",
    }
    return Place(Kind.HLS, str(playlist), "hls", options)


def file_place(path: Path, *, overwrite: bool) -> Place:
    """A file that can be played at any moment, whatever happens to its writer."""
    suffix = path.suffix.lower()
    if suffix not in LIVE_CONTAINERS:
        raise OutputError(
            f"{path}: a live file must be one of {', '.join(LIVE_CONTAINERS)}, got {suffix or 'none'!r}"
        )
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; name the file to write, or end it with / for HLS")
    check_place(path, overwrite=overwrite)
    container = LIVE_CONTAINERS[suffix]
    return Place(Kind.FILE, str(path), container, LIVE_FILE_OPTIONS[container])

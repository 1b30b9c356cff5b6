"""The parts of a live run, each by itself."""

from __future__ import annotations

import logging
import math
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from banet_stream import bench, kinds
from banet_stream.backoff import Backoff, Retry
from banet_stream.contract import NEWER, Contract, Histogram, table
from banet_stream.errors import InputError, OutputError
from banet_stream.fitting import Shape
from banet_stream.frame import Colour
from banet_stream.kinds import Kind, input_kind, is_live, output_kind
from banet_stream.live_reader import Reader
from banet_stream.pipeline import Cancelled, Channel, Mailbox
from banet_stream.redact import RedactingFormatter, redact
from banet_stream.timeline import Timeline

COLOUR = Colour("bt601", False, 6, 6, 6)


# --- mailbox -----------------------------------------------------------------------------------


def test_the_newest_picture_wins_and_sound_keeps_its_turn() -> None:
    gone: list[object] = []
    box: Mailbox[object] = Mailbox(is_picture=lambda i: isinstance(i, int), dropped=gone.append)
    for item in (1, "a", 2, "b", 3, "c"):
        box.put(item)
    box.end()
    assert list(box) == ["a", "b", 3, "c"]
    assert gone == [1, 2]


def test_sound_does_not_pile_up_for_ever() -> None:
    gone: list[object] = []
    box: Mailbox[object] = Mailbox(is_picture=lambda i: isinstance(i, int), dropped=gone.append)
    for number in range(1000):
        box.put(f"sound {number}")
    box.end()
    left = list(box)
    assert left[-1] == "sound 999"
    assert len(left) + len(gone) == 1000
    assert len(left) <= 256


def test_a_mailbox_never_waits_and_can_be_cancelled() -> None:
    box: Mailbox[int] = Mailbox(is_picture=lambda _: True, dropped=lambda _: None)
    began = time.monotonic()
    for number in range(10_000):
        box.put(number)
    assert time.monotonic() - began < 5
    box.cancel()
    with pytest.raises(Cancelled):
        box.put(1)


def test_ticks_come_when_nothing_else_does() -> None:
    channel: Channel[int] = Channel(2, tick_seconds=0.02)
    items = iter(channel)
    assert next(items) is None
    channel.put(1)
    assert next(items) == 1
    channel.end()
    assert list(items) == []


# --- contract ----------------------------------------------------------------------------------


def test_percentiles_are_right_to_a_hundredth() -> None:
    values = np.random.default_rng(0).lognormal(-3, 1, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    for share in (0.5, 0.95, 0.99):
        expected = float(np.quantile(values, share, method="inverted_cdf"))
        assert expected <= histogram.percentile(share) * (1 + 1e-9) <= expected * 1.0101
    assert math.isnan(Histogram().percentile(0.5))


def test_the_contract_says_what_happened_and_recently() -> None:
    contract = Contract("newest frame wins")
    for _ in range(10):
        contract.capture()
    for _ in range(8):
        contract.show(0.040)
    contract.drop(NEWER, 2)
    contract.cover("MatteError")
    contract.reconnect("source")
    recent = contract.turn()
    contract.capture()
    contract.finish()
    assert (recent.captured, contract.whole.captured, contract.recent.captured) == (10, 11, 1)
    text = table(contract, recent)
    for words in ("latency p99 ms", "40.", NEWER, "MatteError", "source reconnects", "newest frame wins"):
        assert words in text
    ended = contract.whole.seconds
    time.sleep(0.01)
    assert contract.whole.seconds == ended


# --- back-off ----------------------------------------------------------------------------------


def test_waits_double_up_to_the_longest_with_jitter() -> None:
    backoff = Backoff(Retry(0.5, 4.0))
    waits = [backoff.wait_seconds() or 0.0 for _ in range(200)]
    for number, expected in enumerate((0.5, 1, 2, 4, 4, 4)):
        assert expected * 0.75 <= waits[number] <= expected * 1.25
    assert len({round(w, 6) for w in waits[4:]}) > 100  # spread
    assert max(waits) <= 5
    backoff.reset()
    assert (backoff.wait_seconds() or 0.0) <= 0.625


def test_attempts_run_out() -> None:
    backoff = Backoff(Retry(0.5, 4.0, attempts=2))
    assert [backoff.wait_seconds() is None for _ in range(3)] == [False, False, True]


# --- credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://user:hunter2@camera/stream",
        "rtsp://user:hun@ter2/x@camera:554/stream",
        "rtsp://hunter2@camera/",
        "http://camera/live.m3u8?token=hunter2&quality=1",
        "http://camera/video?quality=1&user_password=hunter2",
        "rtmp://live.example/app/hunter2",
        "RTMPS://user:x@live.example/app/hunter2?x=1",
        "srt://host:1234?streamid=hunter2",
        "rtsp://u:hun ter2@h/x",
        "rtsp://u:p'hunter2@h/x",
        "rtsp://u:12'hun@ter2@h/x",
        "http://h/x?loginuse=hunter2&loginpas=hunter2",
        "http://h/x?pw=hunter2&usr=hun'ter2",
        "rtsp://h:554/user=hunter2_password=hunter2_channel=1.sdp",
        "rtsp://h:554/user=hunter2&password=hunter2&channel=1.sdp?x",
        "rtmp://host:1935/hunter2key",
    ],
)
def test_credentials_are_hidden(url: str) -> None:
    text = redact(f"can't open '{url}': refused")
    assert "hunter2" not in text
    assert "hun" not in text
    assert "***" in text
    assert text.endswith("': refused")


def test_what_is_no_secret_stays() -> None:
    for text in (
        "rtsp://camera:554/stream?channel=1",
        "user@example",
        "/dev/video0: busy",
        "rtsp://camera:554: refused, ask admin@example.org",
        "'rtsp://camera:554': refused, ask admin@example.org",
        "rtsp://[::1]:554 refused, ask admin@example.org",
        "rtmp://host:1935: refused",
    ):
        assert redact(text) == text


def test_bench_shows_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["a.mp4", "rtsp://user:hunter2@camera/"])
    assert "hunter2" not in capsys.readouterr().err


def test_tracebacks_are_redacted() -> None:
    record = None
    try:
        raise OSError(111, "Connection refused", "rtsp://user:hunter2@camera/")
    except OSError:
        import sys

        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    text = RedactingFormatter().format(record)
    assert "Traceback" in text
    assert "hunter2" not in text


# --- kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("rtsp://camera/x", Kind.RTSP),
        ("RTSPS://camera/x", Kind.RTSP),
        ("rtmp://server/app/key", Kind.RTMP),
        ("srt://server:1", Kind.SRT),
        ("udp://239.0.0.1:1", Kind.STREAM),
        ("http://x/live.m3u8?token=1", Kind.HLS),
        ("https://x/film.mp4", Kind.HTTP),
        ("webcam", Kind.WEBCAM),
        ("0", Kind.WEBCAM),
        ("/dev/video10", Kind.WEBCAM),
        ("lavfi:testsrc", Kind.LAVFI),
        ("film.mp4", Kind.FILE),
        ("./0", Kind.FILE),
        ("./webcam", Kind.FILE),
    ],
)
def test_input_by_its_look(text: str, kind: Kind) -> None:
    assert input_kind(text) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, Kind.NOWHERE),
        ("rtsp://server/live", Kind.RTSP),
        ("rtmps://server/app/key", Kind.RTMP),
        ("live/", Kind.HLS),
        ("live/tv.m3u8", Kind.HLS),
        ("/dev/video10", Kind.VIRTUAL_CAMERA),
        ("virtual-camera", Kind.VIRTUAL_CAMERA),
        ("out.mp4", Kind.FILE),
    ],
)
def test_output_by_its_look(text: str | None, kind: Kind) -> None:
    assert output_kind(text) is kind


def test_what_is_live() -> None:
    assert not is_live("in.mp4", "out.mp4")
    assert not is_live("http://x/in.mp4", "out.mp4")
    assert is_live("in.mp4", "out.mp4", realtime=True)
    assert is_live("in.mp4", "rtsp://server/live")
    assert is_live("webcam", "out.mp4")


def test_webcams_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "DEVICES", tmp_path)
    with pytest.raises(InputError, match="no webcam on this machine"):
        kinds.input_place("webcam")
    with pytest.raises(InputError, match="no such webcam"):
        kinds.input_place("0")
    for number in (2, 10):
        (tmp_path / f"video{number}").touch()
    place = kinds.input_place("webcam", camera_size="640x480", camera_fps=29.97, camera_format="yuyv")
    assert (place.url, place.format) == (str(tmp_path / "video2"), "v4l2")
    assert place.options == {"video_size": "640x480", "framerate": "29.97", "input_format": "yuyv422"}
    with pytest.raises(InputError, match=r"there are .*video2, .*video10"):
        kinds.input_place("3")


def test_standard_input_is_not_played_live() -> None:
    with pytest.raises(InputError, match="-: standard input can't be played live"):
        kinds.input_place("-")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("http://server/live", "can't be published to"),
        ("out.avi", r"must be one of .*got '\.avi'"),
        ("nowhere/out.mp4", "there is no directory"),
    ],
)
def test_outputs_that_are_refused(output: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        kinds.output_place(output)


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.touch()
    with pytest.raises(OutputError, match="--overwrite"):
        kinds.output_place(str(path))
    assert kinds.output_place(str(path), overwrite=True).format == "mp4"


# --- time --------------------------------------------------------------------------------------


def test_sound_and_picture_stay_in_step_over_a_reconnect() -> None:
    timeline = Timeline(100.0)
    first = timeline.connection(paced=False)
    assert first.place(5.0, 101.0) == pytest.approx(1.0)
    assert first.place(5.02, 101.3) == pytest.approx(1.02)  # a late arrival does not move it
    assert first.place(4.99, 101.3) == pytest.approx(0.99)
    second = timeline.connection(paced=False)  # the same source, started anew, 30 s later
    assert second.place(0.0, 131.0) == pytest.approx(31.0)
    assert second.place(0.5, 131.4) == pytest.approx(31.5)


def test_a_clock_that_jumps_is_set_again() -> None:
    clock = Timeline(0.0).connection(paced=False)
    assert clock.place(10.0, 1.0) == pytest.approx(1.0)
    assert clock.place(5000.0, 2.0) == pytest.approx(2.0)
    assert clock.place(1.0, 3.0) == pytest.approx(3.0)


def test_a_clock_that_steps_back_is_set_again_at_once() -> None:
    """As of a sender that begins anew a few seconds after its start; sound follows its picture."""
    clock = Timeline(0.0).connection(paced=False)
    assert clock.place(10.0, 1.0) == pytest.approx(1.0)
    assert clock.place(10.4, 1.5, "sound") == pytest.approx(1.4)
    assert clock.place(16.0, 7.0) == pytest.approx(7.0)
    assert clock.place(15.8, 7.0) == pytest.approx(6.8)  # rounded, or damaged
    assert clock.place(9.0, 7.1) == pytest.approx(7.1)
    assert clock.place(9.4, 7.5) == pytest.approx(7.5)
    assert clock.place(9.3, 7.5, "sound") == pytest.approx(7.4)
    assert clock.place(9.5, 12.5) == pytest.approx(7.6)  # a stall of the network is none


@pytest.mark.parametrize(("name", "invented"), [("mpjpeg", True), ("mpegts", False)])
def test_times_that_ffmpeg_invents_are_not_believed(name: str, invented: bool) -> None:
    """A camera that sends ten JPEGs a second has 25 by FFmpeg."""
    timeline = Timeline(0.0)
    reader = object.__new__(Reader)
    reader.source = SimpleNamespace(timeline=timeline)
    reader.container = SimpleNamespace(format=SimpleNamespace(name=name))
    reader.recorded = reader.paced = False
    reader.times = timeline.connection(paced=False)
    placed = [
        reader.time_of(SimpleNamespace(pts=i, time_base=Fraction(1, 25)), captured=0.1 * i) for i in range(5)
    ]
    assert placed == pytest.approx([(0.1 if invented else 0.04) * i for i in range(5)])


def test_what_is_paced_does_not_stay_late() -> None:
    clock = Timeline(0.0).connection(paced=True)
    assert clock.place(0.0, 0.0) == pytest.approx(0.0)
    assert clock.place(6.0, 0.1) == pytest.approx(6.0)  # a segment at once: it waits its time
    assert clock.place(6.1, 9.0) == pytest.approx(9.0)  # the next one came late
    assert clock.place(6.2, 9.0) == pytest.approx(9.1)


# --- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (65, 49), (640, 480), (2, 2)])
def test_every_size_is_fitted_into_the_first(size: tuple[int, int]) -> None:
    shape = Shape(64, 48, COLOUR, Fraction(1))
    picture = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 200, np.uint8), format="rgb24")
    planes = shape.planes(picture)
    assert [tuple(p.shape) for p in planes] == [(48, 64), (24, 32), (24, 32)]
    luma = planes[0].numpy()
    assert luma[24, 32] == pytest.approx(16 + 200 / 255 * 219, abs=2)
    if size == (48, 64):  # upright into a lying one: bars at both sides
        assert (luma[:, 0] == 16).all()
        assert (luma[:, -1] == 16).all()
        assert (planes[1].numpy()[:, 0] == 128).all()


def test_another_matrix_and_range_are_converted() -> None:
    shape = Shape(32, 32, COLOUR, Fraction(1))
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[..., 0] = 255
    same = shape.planes(av.VideoFrame.from_ndarray(rgb, format="rgb24"))
    other = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=1, dst_color_range=2
    )
    other.colorspace, other.color_range = 1, 2
    for a, b in zip(shape.planes(other), same, strict=True):
        assert abs(int(a[8, 8]) - int(b[8, 8])) <= 3

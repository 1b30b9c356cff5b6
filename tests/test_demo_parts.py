"""The demo's parts by themselves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import gradio as gr
import numpy as np
import pytest
import torch
from conftest import importing
from icc_profiles import wide_profile
from PIL import Image

from banet_stream import InputError, Interrupted, Matter, cli
from banet_stream.demo import chooser, command, photo, sessions, uploads
from banet_stream.demo.sessions import IDLE_SECONDS, Session, Sessions
from banet_stream.demo.sharing import Turns, share
from banet_stream.demo.uploads import Limits
from banet_stream.demo.video import Job, VideoHandlers, frame_at, is_playable
from banet_stream.demo.webcam import Cameras
from banet_stream.images import convert_colours

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """The command says by environment variables where Gradio's files go."""
    with mock.patch.dict(os.environ):
        yield


def test_readme_holds_the_options() -> None:
    readme = " ".join(README.split())
    for action in command.build_parser()._actions:
        assert all(option in readme for option in action.option_strings if option != "--help")
        if "-h" not in action.option_strings:
            assert " ".join(str(action.help).split()) in readme


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--auth", "ann"], "is written USER:PASSWORD"),
        (["--max-upload", "0"], "a whole number above nothing"),
        (["--port", "eighty"], "a port is a number from 1 to 65535"),
        (["--port", "65536"], "a port is a number from 1 to 65535"),
    ],
)
def test_options_that_make_no_sense(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", *words])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "5"], "size must be between 64 and 4096"),
        (["--model", "nothing"], "neither a shipped model"),
        (["--tls-cert", "a.pem"], "give both or neither"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "--tls-key none.pem: No such file"),
        (["--tls-cert", __file__, "--tls-key", __file__], "not a certificate and its private key in PEM"),
        (["--host", "256.0.0.1"], "--host 256.0.0.1: "),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: "),  # RFC 5737: nobody's
    ],
)
def test_what_can_not_start_says_why(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--no-browser", *words])
    assert caught.value.code not in (0, None)
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command.main(["--no-browser", "--port", str(port)]) == 2
    assert f"--host 127.0.0.1 --port {port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["gradio", "aiortc", "skimage"])
def test_a_missing_extra_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.startswith("banet_stream.demo.")]:
        if name != "banet_stream.demo.command":
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert command.main(["--no-browser"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'banet-stream[demo]'" in said
    assert f"(missing: {missing})" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_gradio_is_imported(number: signal.Signals, tmp_path: Path) -> None:
    process = importing("gradio", "demo", "--no-browser", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert list(tmp_path.glob("banet-demo-*"))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(tmp_path.glob("banet-demo-*"))


def test_turns_go_round() -> None:
    """Three visitors who each want ten frames get them in turn, whoever is quicker to ask again."""
    turns, order, ready = Turns(), [], threading.Barrier(3)

    def visitor(name: str) -> None:
        ready.wait()
        for _ in range(10):
            with turns:
                order.append(name)
                time.sleep(0.005)

    threads = [threading.Thread(target=visitor, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 30
    for start in range(3, 24, 3):  # once all three are there
        assert set(order[start : start + 3]) == set("abc"), order


def test_turns_pass_on_after_an_error() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns:
        raise KeyError
    with turns:
        pass


def test_a_shared_model_gives_the_same_matte(matter: Matter) -> None:
    shared = share(matter)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(shared.engine(image), matter.engine(image))
    assert shared.description == matter.description
    assert shared.at_size(128).engine is shared.engine


def test_session_files_go_with_it(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    shared_upload, own_upload = tmp_path / "hash1" / "a.mp4", tmp_path / "hash2" / "b.mp4"
    for path in (shared_upload, own_upload):
        path.parent.mkdir()
        path.write_bytes(b"x")
    ann, bob = sessions.of("ann"), sessions.of("bob")
    with ann.result_folder() as folder:
        result = folder / "result.mp4"
        result.write_bytes(b"x")
    assert not result.is_relative_to(bob.folder)
    assert len(result.parent.parent.name) >= 20  # not to be guessed
    sessions.adopt(ann, str(shared_upload), str(own_upload), None, "/etc/hostname")
    sessions.adopt(bob, str(shared_upload))
    stop = threading.Event()
    ann.stops.add(stop)
    sessions.close("ann")
    assert stop.is_set()
    assert not result.exists()
    assert not own_upload.parent.exists()
    assert shared_upload.exists()  # bob's still
    sessions.close("bob")
    assert not shared_upload.exists()
    assert Path("/etc/hostname").exists()
    sessions.close("nobody")


def test_what_nobody_comes_back_for_is_swept(tmp_path: Path) -> None:
    example, forgotten, fresh = (tmp_path / f"hash{i}" / "a.png" for i in range(3))
    sessions = Sessions(tmp_path)
    old = time.time() - IDLE_SECONDS - 10
    for path in (example, forgotten, fresh):
        path.parent.mkdir()
        path.write_bytes(b"x")
        if path is not fresh:
            os.utime(path, (old, old))
        if path is example:
            sessions.keep_examples()
    half_arrived = tmp_path / "tmp123"  # as Gradio calls them
    half_arrived.write_bytes(b"x")
    os.utime(half_arrived, (old, old))
    (sessions.root / "nobodys").mkdir()
    idle, busy = sessions.of("idle"), sessions.of("busy")
    for session in (idle, busy):
        with session.result_folder():
            session.used -= IDLE_SECONDS + 10
    stop = threading.Event()
    busy.begin(stop)
    sessions.sweep()
    assert not half_arrived.exists()
    assert list(sessions.root.iterdir()) == [busy.folder]
    busy.end(stop)  # from now on there is an hour for looking at what came of it
    sessions.sweep()
    assert example.exists()
    assert fresh.exists()
    assert not forgotten.exists()
    assert sessions.find("idle") is None
    assert busy.folder.exists()


def test_a_quiet_server_sweeps_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SWEEP_SECONDS", 0.01)
    visitors = Sessions(tmp_path)
    left = visitors.root / "left"
    left.mkdir()
    with visitors.sweeping():
        deadline = time.monotonic() + 60
        while left.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "banet-demo-sweep" not in {thread.name for thread in threading.enumerate()}


def write_before(sessions: Sessions, ann: Session) -> None:
    with ann.result_folder() as folder:
        (folder / "a.jpg").write_bytes(b"x")
        sessions.close("ann")


def write_after(sessions: Sessions, ann: Session) -> None:
    with ann.result_folder() as folder:
        sessions.close("ann")
        (folder / "a.jpg").write_bytes(b"x")


def begin_after(sessions: Sessions, ann: Session) -> None:
    sessions.close("ann")
    with ann.result_folder():
        pass


def cut_out_meanwhile(sessions: Sessions, ann: Session) -> None:
    picture = sessions.uploads.parent / "me.png"
    Image.new("RGB", (8, 8)).save(picture)

    def close_meanwhile(*_: object, **__: object) -> np.ndarray:
        sessions.close("ann")
        return np.zeros((8, 8, 4), np.uint8)

    handlers = photo.PhotoHandlers(None, sessions, Limits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo, "cut_out", close_meanwhile)
        request = SimpleNamespace(session_hash="ann")
        handlers.cut_out_photo(str(picture), "transparent", None, None, 60, None, request)


@pytest.mark.parametrize("act", [write_before, write_after, begin_after, cut_out_meanwhile])
def test_a_page_closed_while_work_goes_on_leaves_nothing(
    act: Callable[[Sessions, Session], None], tmp_path: Path
) -> None:
    sessions = Sessions(tmp_path / "files")
    ann = sessions.of("ann")
    with pytest.raises((Interrupted, gr.Error), match="The page was closed"):
        act(sessions, ann)
    assert list(sessions.root.iterdir()) == []
    stop = threading.Event()
    ann.begin(stop)
    assert stop.is_set()


WRONG_COLOURS = [
    "green",
    "#12",
    "#gggggg",
    "rgba(1,2)",
    "#00b140;",
    "#-fffff",
    "#+fffff",
    "#1_1_1_",
    "000b140",
]
WRONG_NUMBERS = [
    "rgba(300,-5,2,1)",
    "rgba(1e999,0,0,1)",
    "rgba(256,0,0,1)",
    "rgba(nan,0,0,1)",
    "rgba(1,2,3,x)",
]


@pytest.mark.parametrize("text", [*WRONG_COLOURS, *WRONG_NUMBERS])
def test_what_is_no_colour(text: str) -> None:
    with pytest.raises(InputError, match="A colour is written like #00b140"):
        chooser.rgb_of_colour(text)


def test_colours() -> None:
    for text in ("#00b140", "#00B140", "rgba(0, 177.4, 64, 1)", "rgb(1e-14, 177, 63.999, 0.5)"):
        assert chooser.rgb_of_colour(text) == (0, 177, 64)
    for nothing in ("", None):
        with pytest.raises(InputError, match="Choose a colour first"):
            chooser.rgb_of_colour(nothing)


@pytest.mark.parametrize("data", [None, [], ["session"], "session", 7, {}])
def test_what_is_no_offer_gets_an_answer(data: object, tmp_path: Path) -> None:
    cameras = Cameras(None, Sessions(tmp_path), Limits(), ("blur", None, None, 60, None))
    assert list(asyncio.run(cameras.offer(data))) == ["error"]


def test_pictures_are_read_upright_and_within_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = 6  # turn it clockwise
    Image.new("RGB", (40, 20), "red").save(path, exif=exif)
    assert uploads.read_picture(str(path), Limits()).shape == (40, 20, 3)
    with pytest.raises(InputError, match=r"a\.jpg has 0 megapixels; this page takes at most 0\.0005"):
        uploads.read_picture(str(path), Limits(picture_megapixels=0.0005))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=re.escape("a.jpg is damaged")):
        uploads.read_picture(str(path), Limits())
    for read in (uploads.read_picture, uploads.check_video):
        with pytest.raises(InputError, match=r"^gone\.png is no longer on the server\. Upload it again\.$"):
            read(str(tmp_path / "gone.png"), Limits())
    # A format that Pillow reads and the page does not take.
    Image.new("RGB", (4, 4)).save(tmp_path / "b.gif")
    (tmp_path / "b.gif").rename(tmp_path / "b.png")
    with pytest.raises(InputError, match="It takes JPEG, PNG or WebP"):
        uploads.read_picture(str(tmp_path / "b.png"), Limits())


def test_pictures_are_read_in_srgb_and_black_where_clear(tmp_path: Path) -> None:
    orange, path = (200, 120, 40), str(tmp_path / "a.png")
    Image.new("RGB", (4, 4), orange).save(path, icc_profile=wide_profile())
    seen = convert_colours(Image.new("RGB", (1, 1), orange), wide_profile(), None).getpixel((0, 0))
    assert (uploads.read_picture(path, Limits()) == seen).all()
    assert seen != orange
    Image.new("RGBA", (4, 4), (255, 0, 255, 0)).save(path)
    assert not uploads.read_picture(path, Limits()).any()


def test_squares_show_through_what_is_clear() -> None:
    from banet_stream.demo.photo import DARK, LIGHT, over_squares

    clear = np.zeros((100, 200, 4), np.uint8)
    assert set(np.unique(over_squares(clear))) == {DARK, LIGHT}
    clear[..., 3], clear[..., 0] = 255, 200
    assert (over_squares(clear) == (200, 0, 0)).all()


def test_a_video_longer_than_its_header_says_is_stopped(
    tmp_path: Path, clip: Callable[..., Path], matter: Matter
) -> None:
    output = tmp_path / "out [1080p].mp4"  # brackets mean something else to glob
    job = Job(str(clip(width=64, height=64, frames=60)), output, "blur", matter.at_size(64), most_frames=5)
    job.run()
    assert job.too_long
    assert job.latest is not None
    assert job.latest.frames < 60
    assert list(tmp_path.iterdir()) == []  # no part of it is left
    handlers = VideoHandlers(matter, Sessions(tmp_path / "files"), Limits())
    with pytest.raises(InputError, match="has more than 5 frames"):
        handlers.finished(job)


def test_deep_colour_becomes_what_browsers_play(clip: Callable[..., Path]) -> None:
    assert is_playable(str(clip(width=64, height=64)))
    assert not is_playable(str(clip(width=64, height=64, codec="libx265", pixel_format="yuv420p10le")))
    assert not is_playable(str(clip(width=64, height=64, pixel_format="yuv444p")))


def test_a_frame_late_in_a_clip_or_the_last_or_the_first(clip: Callable[..., Path]) -> None:
    path = clip(width=96, height=128, frames=40, noise=True)  # 1.6 s
    first, late, last = (frame_at(path, seconds) for seconds in (0.0, 0.8, 1.57))
    assert first.shape == (128, 96, 3)
    assert not np.array_equal(late, last)
    for seconds in (1.58, 1.6, 1.7):  # past the last frame's beginning, and behind the end
        np.testing.assert_array_equal(frame_at(path, seconds), last)
    np.testing.assert_array_equal(frame_at(path, 9.0), first)


def test_stills_of_a_file_that_is_cut_off(clip: Callable[..., Path], matter: Matter, tmp_path: Path) -> None:
    """It says that it is longer: their moment is the middle of what came of it."""
    whole = clip(suffix=".mkv", width=64, height=64, frames=200, noise=True)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    handlers = VideoHandlers(matter, Sessions(tmp_path / "files"), Limits())
    job = Job(str(path), tmp_path / "o.mp4", "green", matter.at_size(64), Limits().frames)
    job.run()
    status, video, stills = handlers.finished(job)
    assert "cut off or damaged" in status
    assert video == str(job.output)
    assert all(Path(still).exists() for still in stills)


def test_slow_motion_of_too_many_frames_is_refused_at_once(clip: Callable[..., Path]) -> None:
    slow = str(clip(width=64, height=64, frames=200, rate=Fraction(240)))
    with pytest.raises(InputError, match="has 200 frames; this page takes at most 120"):
        uploads.check_video(slow, Limits(seconds=1.0))
    assert uploads.check_video(slow, Limits()) == pytest.approx(200 / 240, abs=0.01)

"""The demo's HTTP API: a real server, asked by gradio_client and by hand-made requests."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from demo_server import DemoServer, watched_demo
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from skimage.data import astronaut

README = Path(__file__).parent.parent / "README.md"
GREEN, GREEN_TEXT = (0, 177, 64), "#00b140"


@pytest.fixture
def client(demo: DemoServer, tmp_path: Path) -> Client:
    return Client(demo.address, verbose=False, download_files=str(tmp_path / "got"), analytics_enabled=False)


def replaced(client: Client, video: Path | str, **options: object) -> tuple[str, dict, object]:
    arguments = {"kind": "colour", "colour": "#00b140", **options}
    return client.predict(video=handle_file(str(video)), api_name="/replace_video", **arguments)


def test_readme_example_runs(demo: DemoServer, tmp_path: Path) -> None:
    """As printed, but for the port."""
    code = re.search(r"```python\n(from gradio_client.*?)```", README.read_text(), re.DOTALL)[1]
    assert "127.0.0.1:7860" in code
    Image.fromarray(astronaut()[:256, 100:356]).save(tmp_path / "me.jpg")
    code = code.replace("http://127.0.0.1:7860", demo.address)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with Image.open(done.stdout.split()[-1]) as cut:
        assert cut.mode == "RGBA"
        assert cut.size == (256, 256)


def test_video_comes_back_with_another_background_and_its_sound(
    demo: DemoServer, client: Client, clip: Callable[..., Path]
) -> None:
    status, result, _ = replaced(client, clip(width=160, height=120, audio="aac"))
    assert "Done: 12 frames" in status
    path = result["video"] if isinstance(result, dict) else result
    with av.open(path) as container:
        assert container.streams.audio
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert abs(frame[2:8, 2:8].reshape(-1, 3).mean(0) - GREEN).max() < 12
    assert demo.files  # while the session lasts
    client.close()
    wait_for(lambda: not demo.files)


def test_nothing_stays_once_the_page_is_closed(
    demo: DemoServer, client: Client, clip: Callable[..., Path], tmp_path: Path
) -> None:
    """Uploads, results, and the pictures that show them."""
    before = set(demo.kept)
    photo = tmp_path / "mine.png"
    Image.fromarray(astronaut()[:150, 120:270]).save(photo)
    video = clip(width=176, height=144)
    client.predict(photo=handle_file(str(photo)), kind="colour", api_name="/cut_out_photo")
    replaced(client, video)
    client.predict(video=handle_file(str(video)), moment=50, api_name="/explain_frame")
    mine = set(demo.kept) - before
    assert len(mine) == 2 + 3 + 3 + 5
    asked = [f"{demo.address}/gradio_api/file={path}" for path in mine]
    assert {httpx.get(address).status_code for address in asked} == {200}
    client.close()
    wait_for(lambda: not mine & set(demo.kept))
    assert {httpx.get(address).status_code for address in asked} == {403}


def test_an_upload_that_is_gone_is_said(demo: DemoServer, tmp_path: Path) -> None:
    photo = tmp_path / "brief.png"
    Image.new("RGB", (33, 33)).save(photo)
    for name, data in (("cut_out_photo", ["blur", None, GREEN_TEXT, 50, None]), ("explain_frame", [50])):
        with photo.open("rb") as content:
            sent = {"files": (f"brief.{'png' if data[1:] else 'mp4'}", content)}
            path = httpx.post(f"{demo.address}/gradio_api/upload", files=sent).json()[0]
        Path(path).unlink()
        answer = called(demo, name, [{"path": path, "meta": {"_type": "gradio.FileData"}}, *data])
        assert "is no longer on the server. Upload it again." in answer
        assert str(demo.folder) not in answer


def test_transparent_video_comes_back_with_alpha(client: Client, clip: Callable[..., Path]) -> None:
    status, result, _ = replaced(client, clip(width=160, height=120), kind="transparent")
    assert "Done: 12 frames" in status
    path = result["video"] if isinstance(result, dict) else result
    assert path.endswith(".webm")
    with av.open(path) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda p: (p / "notes.mp4").write_text("no video at all"),
            "notes.mp4 is not a video",
        ),
        # FFmpeg would take it for a playlist and open what it names.
        (
            lambda p: (p / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"),
            "list.mp4 is not a video",
        ),
        (lambda p: (p / "page.html").write_text("<b>hello</b>"), "page.html is not accepted"),
        (lambda p: (p / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(400)), "cut.mp4: "),
    ],
)
def test_what_is_no_video_is_refused_in_words(
    make: Callable[[Path], object], says: str, demo: DemoServer, client: Client, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    make(folder)
    with pytest.raises(AppError, match=re.escape(says)) as caught:
        replaced(client, next(folder.iterdir()))
    assert str(demo.folder) not in str(caught.value)  # nobody learns the server's paths


def test_limits_are_said(client: Client, clip: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"has 720 x 96 pixels; this page takes at most 640"):
        replaced(client, clip(width=720, height=96, frames=2))
    with pytest.raises(AppError, match=r"is 24 seconds long; this page takes at most 20"):
        replaced(client, clip(width=64, height=64, frames=24, rate=Fraction(1)))
    with pytest.raises(AppError, match="Choose a video first"):
        client.predict(video=None, kind="blur", api_name="/replace_video")
    with pytest.raises(AppError, match=r"A colour is written like #00b140"):
        replaced(client, clip(width=64, height=64, frames=2), colour="javascript:1")
    with pytest.raises(AppError, match=r"Choose a colour first"):
        replaced(client, clip(width=64, height=64, frames=2), colour=None)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(3_000_000))
    with pytest.raises(Exception, match=r"413|maximum"):
        replaced(client, large)


def test_neither_paths_nor_addresses_are_opened(demo: DemoServer, tmp_path: Path) -> None:
    """By hand, since the client would upload the file itself."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    addresses = ("http://198.51.100.7/a.png", "https://example.invalid/a.png")
    for path in (str(secret), "/etc/passwd", *addresses):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        answer = called(demo, "cut_out_photo", [file, "blur", None, GREEN_TEXT, 50, None])
        assert "event: error" in answer, answer
        assert "event: complete" not in answer
    for path in (str(secret), "/etc/passwd", "..%2f..%2fetc%2fpasswd"):
        assert httpx.get(f"{demo.address}/gradio_api/file={path}").status_code in (403, 404)
    assert demo.outside == []


def called(demo: DemoServer, name: str, data: list[object]) -> str:
    event = httpx.post(f"{demo.address}/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    return httpx.get(f"{demo.address}/gradio_api/call/{name}/{event}", timeout=60).text


def test_photo_by_every_kind_of_background(client: Client, tmp_path: Path) -> None:
    photo = tmp_path / "me.png"
    Image.fromarray(astronaut()[:200, 120:320]).save(photo)
    for kind, mode in (("transparent", "RGBA"), ("colour", "RGB"), ("blur", "RGB"), ("picture", "RGB")):
        options = {"kind": kind, "picture": handle_file(str(photo)), "colour": GREEN_TEXT}
        _, file = client.predict(photo=handle_file(str(photo)), api_name="/cut_out_photo", **options)
        with Image.open(file) as result:
            assert result.mode == mode
            assert result.size == (200, 200)
            if kind == "colour":
                assert abs(np.asarray(result)[2, 150].astype(int) - GREEN).max() < 8
    with pytest.raises(AppError, match="Choose a background picture first"):
        client.predict(photo=handle_file(str(photo)), kind="picture", picture=None, api_name="/cut_out_photo")


def test_frame_is_explained(client: Client, clip: Callable[..., Path]) -> None:
    *pictures, timing = client.predict(
        video=handle_file(str(clip(width=160, height=120))), moment=50, api_name="/explain_frame"
    )
    assert len(pictures) == 5
    for path in pictures:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5  # something to see
    assert timing.count(" ms</td>") == 3


def test_login_is_asked_for_everywhere(tmp_path: Path) -> None:
    with watched_demo(tmp_path, "--size", "64", "--device", "cpu", "--auth", "ann:s3cret") as server:
        for path in ("config", "gradio_api/info", "gradio_api/queue/data"):
            assert httpx.get(f"{server.address}/{path}").status_code == 401
        body = {"data": {"sdp": ""}, "component_id": 1, "fn_name": "offer", "session_hash": "x"}
        assert httpx.post(f"{server.address}/gradio_api/component_server", json=body).status_code == 401
        bad = httpx.post(f"{server.address}/login", data={"username": "ann", "password": "no"})
        assert bad.status_code == 400
        good = httpx.post(f"{server.address}/login", data={"username": "ann", "password": "s3cret"})
        assert httpx.get(f"{server.address}/config", cookies=good.cookies).status_code == 200
        left = list(tmp_path.glob("banet-demo-*"))
        assert len(left) == 1
        assert left[0].stat().st_mode & 0o077 == 0  # nobody else on the machine reads it
    assert not list(tmp_path.glob("banet-demo-*"))  # and it is gone with the server

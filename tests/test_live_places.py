"""HLS, HTTP and RTMP, out and in."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from conftest import read
from live_runs import CAMERA, WAIT_SECONDS, Running, is_green, run
from live_servers import free_port, wait_for_listener, web_server

from banet_stream import Matter, kinds
from banet_stream.contract import SINK_AWAY
from banet_stream.errors import InputError
from banet_stream.live import process_live

Clip = Callable[..., Path]


# --- HLS and HTTP ------------------------------------------------------------------------------


def test_hls_out_and_in_again(running: Callable[..., Running], tmp_path: Path) -> None:
    folder = tmp_path / "tv"
    out = running(CAMERA, f"{folder}/")
    playlist = folder / "index.m3u8"
    deadline = time.monotonic() + 40
    while (
        not (playlist.exists() and playlist.read_text().count("#EXTINF") >= 2) and time.monotonic() < deadline
    ):
        assert out.thread.is_alive(), out.error
        time.sleep(0.1)
    assert "#EXT-X-ENDLIST" not in playlist.read_text()
    back = tmp_path / "back.mkv"
    with web_server(folder) as address:
        viewer = running(f"{address}/index.m3u8", back)
        viewer.more_frames(30)
        viewer.end()
    out.end()
    assert all(is_green(f) for f in read(back).frames)
    assert "#EXT-X-ENDLIST" in playlist.read_text()  # in order


def test_hls_keeps_a_few_segments_only(running: Callable[..., Running], tmp_path: Path) -> None:
    run = running(CAMERA, tmp_path / "live.m3u8")
    run.more_frames(60)
    run.end()
    segments = sorted(tmp_path.glob("live-*.ts"))
    assert 1 <= len(segments) <= kinds.HLS_SEGMENTS + 2
    assert all(is_green(f) for f in read(segments[0]).frames)  # each begins with a key frame


def write_playlist(clip: Path, folder: Path) -> Path:
    """The clip's pictures as HLS in segments of a second, with EXT-X-ENDLIST."""
    playlist = folder / "index.m3u8"
    options = {"hls_time": "1", "hls_list_size": "0"}
    with av.open(str(clip)) as old, av.open(str(playlist), "w", format="hls", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return playlist


def test_a_recorded_playlist_plays_once(running: Callable[..., Running], clip: Clip, tmp_path: Path) -> None:
    write_playlist(clip(frames=50), tmp_path)
    with web_server(tmp_path) as address:
        run = running(f"{address}/index.m3u8", tmp_path / "o.mkv")
        run.thread.join(WAIT_SECONDS)
    assert run.error is None
    assert run.summary is not None
    assert run.summary.contract.whole.captured == 50
    assert not run.summary.contract.whole.reconnects


def test_a_live_playlist_that_ends_is_come_back_to(
    running: Callable[..., Running], clip: Clip, tmp_path: Path
) -> None:
    playlist = write_playlist(clip(frames=50), tmp_path)
    text = playlist.read_text()
    assert "#EXT-X-ENDLIST" in text
    playlist.write_text(text.replace("#EXT-X-ENDLIST", ""))
    with web_server(tmp_path) as address:
        run = running(f"{address}/index.m3u8", tmp_path / "o.mkv")
        run.more_frames()
        away = playlist.rename(tmp_path / "away")
        time.sleep(2)
        away.rename(playlist)
        run.wait(lambda c: c.whole.reconnects["source"] >= 1, "a second connection")
        run.end()


def test_a_live_playlist_that_is_ended_is_not_played_again(
    running: Callable[..., Running], clip: Clip, tmp_path: Path
) -> None:
    playlist = write_playlist(clip(frames=100), tmp_path)
    text = playlist.read_text()
    playlist.write_text(text.replace("#EXT-X-ENDLIST", ""))
    with web_server(tmp_path) as address:
        run = running(f"{address}/index.m3u8", tmp_path / "o.mkv")
        run.more_frames()
        playlist.write_text(text)
        run.thread.join(WAIT_SECONDS)
        assert not run.thread.is_alive()
    assert run.error is None
    assert run.summary is not None
    assert not run.summary.contract.whole.reconnects["source"]
    assert run.summary.contract.whole.captured <= 100


def test_http_recording_at_its_own_pace(running: Callable[..., Running], clip: Clip, tmp_path: Path) -> None:
    source = clip(frames=30, index_first=True)
    with web_server(source.parent) as address:
        run = running(f"{address}/{source.name}", tmp_path / "o.mkv")
        run.thread.join(60)
    assert run.error is None
    assert run.summary is not None
    assert run.summary.contract.whole.captured == 30
    assert all(is_green(f) for f in read(tmp_path / "o.mkv").frames)


def test_an_http_recording_that_breaks_off_is_not_begun_again(
    stub: Callable[..., Matter], clip: Clip, tmp_path: Path
) -> None:
    content, asked = clip(frames=60, index_first=True).read_bytes(), []

    class Half(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content[: len(content) * 9 // 10])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, output = f"http://127.0.0.1:{server.server_address[1]}/a.mp4", tmp_path / "o.mkv"
        with pytest.raises(InputError, match="what came before is written, and is not begun again"):
            run(address, output, stub(), realtime=True, duration_seconds=20)
        server.shutdown()
    assert 0 < len(read(output).frames) < 60


def test_http_that_is_not_there(stub: Callable[..., Matter], tmp_path: Path) -> None:
    with web_server(tmp_path) as address, pytest.raises(InputError, match="404"):
        process_live(f"{address}/none.m3u8", None, matter=stub())


# --- RTMP --------------------------------------------------------------------------------------


class RtmpReader(threading.Thread):
    """Waits for one publisher, as a server would, and reads what it sends."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.frames, self.sounds = url, 0, 0
        self.green = True
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        with av.open(self.url, format="flv", options={"listen": "1"}, timeout=(60, 10)) as container:
            try:
                for packet in container.demux():
                    if packet.stream.type == "audio":
                        self.sounds += 1
                        continue
                    for frame in packet.decode():
                        self.frames += 1
                        self.green &= is_green(frame)
                    if self.enough.is_set():
                        return
            except (av.FFmpegError, OSError):
                return


def test_rtmp_out_with_sound_over_a_loss(running: Callable[..., Running], clip: Clip) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/app/key"
    first = RtmpReader(url)
    wait_for_listener(port)
    run = running(clip(frames=1500, audio="aac"), url)
    run.wait(lambda _: first.frames >= 10, "frames at the server")
    first.enough.set()
    first.join(20)
    assert first.green
    assert first.sounds > 5
    run.wait(lambda c: c.whole.dropped[SINK_AWAY] >= 1, "the loss")
    second = RtmpReader(url)
    run.wait(lambda _: second.frames >= 10, "frames at the second server")
    assert run.contract is not None
    assert run.contract.whole.reconnects["sink"] >= 1
    assert second.green
    run.end()
    second.enough.set()
    second.join(20)


@pytest.mark.skipif(
    not shutil.which("ffmpeg"), reason="no ffmpeg program to serve RTMP; apt-get install ffmpeg"
)
def test_rtmp_in(running: Callable[..., Running], clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/app/key"
    line = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip(frames=50)), "-c", "copy"]
    server = subprocess.Popen([*line, "-f", "flv", "-listen", "1", url], stdin=subprocess.DEVNULL)
    try:
        wait_for_listener(port)
        run = running(url, tmp_path / "o.mkv")
        run.more_frames(20)
        run.end()
    finally:
        server.kill()
        server.wait()
    assert all(is_green(f) for f in read(tmp_path / "o.mkv").frames)

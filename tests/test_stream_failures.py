"""Runs that go wrong, or are broken off: what is left behind, and what is never touched."""

from __future__ import annotations

import errno
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
import torch
from conftest import read, tone
from live_servers import served_by
from PIL import Image

import banet_stream
from banet_stream import EncodeOptions, Matter, cli, process
from banet_stream.background import Plain
from banet_stream.errors import IncompleteInput, InputError, Interrupted, MatteError, OutputError
from banet_stream.live import LiveOptions, process_live

Clip = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_a_cut_off_source_is_processed_and_its_loss_counted(
    clip: Clip, matter: Matter, tmp_path: Path, suffix: str
) -> None:
    """The index is whole, the end of the pictures is missing."""
    whole = clip(frames=60, noise=True, suffix=suffix, index_first=suffix == ".mov")
    cut, output = tmp_path / f"cut{suffix}", tmp_path / "out.mp4"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(IncompleteInput, match=r"\d+ of \d+ frames lost") as caught:
        process(cut, output, matter=matter)
    frames = len(read(output).frames)
    assert 20 < frames < 60
    lost, total = (int(n) for n in re.search(r"(\d+) of (\d+) frames lost", str(caught.value)).groups())
    slack = 0 if suffix == ".mov" else 2  # Matroska promises a duration, not a count
    assert abs(lost - (60 - frames)) <= slack
    assert abs(total - 60) <= slack
    assert caught.value.summary.frames == frames


@contextmanager
def half_served(content: bytes, *, stalls: bool = False) -> Iterator[str]:
    """The address of a file of which a server sends one half, and closes; or says no more."""
    over = threading.Event()

    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            if stalls:
                over.wait(20)

        def log_message(self, *_: object) -> None:
            return

    with served_by(Half) as address:
        try:
            yield f"{address}/clip.ts"
        finally:
            over.set()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("stalls", [False, True], ids=["closes", "stalls"])
def test_a_connection_that_breaks_off_is_a_loss(
    clip: Clip, matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stalls: bool, resume: bool
) -> None:
    """MPEG-TS does not say how long it is."""
    monkeypatch.setattr("banet_stream.opening.READ_TIMEOUT_SECONDS", 0.5)
    source = clip(frames=50, noise=True, suffix=".ts", audio="aac").read_bytes()
    output, why = tmp_path / "out.mp4", "timed out" if stalls else "Input/output error"
    with (
        half_served(source, stalls=stalls) as url,
        pytest.raises(
            IncompleteInput, match=f"cut off or damaged \\({why}\\): an unknown number of frames lost"
        ) as caught,
    ):
        process(url, output, matter=matter, resume=resume)
    assert 5 < len(read(output).frames) == caught.value.summary.frames < 50


def test_zero_frames(matter: Matter, tmp_path: Path) -> None:
    source, output = tmp_path / "none.mkv", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:  # a video stream is declared, and holds nothing
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        container.mux(sound.encode(tone(0, 48000)))
        container.mux(sound.encode(None))
    with pytest.raises(InputError, match="no video frame"):
        process(source, output, matter=matter)
    assert [p.name for p in tmp_path.iterdir()] == ["none.mkv"]


@pytest.mark.parametrize("fault", ["engine", "nan", "background", "encoder"])
def test_an_error_in_any_stage_leaves_nothing_behind(
    clip: Clip, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = clip(frames=40, audio="aac"), tmp_path / "out.mp4"
    broken = Matter(device="cpu", precision="float32", size=64, engine="torch")
    calls = 0

    def later(action: Callable[[], object]) -> object:
        nonlocal calls
        calls += 1
        return action() if calls == 15 else None

    def fail() -> None:
        raise RuntimeError("out of memory\nand a long trace")

    expected: type[Exception] = MatteError
    if fault in ("engine", "nan"):
        network = broken.engine.network
        original = network.forward

        def forward(image: torch.Tensor) -> object:
            if fault == "engine":
                later(fail)
                return original(image)
            output = original(image)
            return output._replace(alpha=output.alpha * float("nan")) if later(lambda: True) else output

        monkeypatch.setattr(network, "forward", forward)
    elif fault == "background":
        expected = RuntimeError
        planes = Plain.planes
        monkeypatch.setattr(Plain, "planes", lambda *a: (later(fail), planes(*a))[1])
    else:
        expected = OutputError
        from banet_stream import encode

        def full() -> None:
            raise OSError(28, "No space left on device")

        write = encode.Sink.write
        monkeypatch.setattr(encode.Sink, "write", lambda *a: (later(full), write(*a))[1])
    with pytest.raises(expected) as caught:
        process(source, output, background="green", matter=broken)
    assert "\n" not in str(caught.value) or expected is RuntimeError
    if fault == "encoder":
        assert "disk is full" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("banet-")]


def test_stop_keeps_a_playable_part(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    stop = threading.Event()
    output = tmp_path / "out.mp4"

    def watch(now: banet_stream.Progress) -> None:
        if now.frames == 10:
            stop.set()

    with pytest.raises(Interrupted, match=r"out\.part\.mp4") as caught:
        process(clip(frames=100, audio="aac"), output, matter=matter, progress=watch, stop=stop)
    part = tmp_path / "out.part.mp4"
    assert [p.name for p in tmp_path.iterdir()] == [part.name]
    frames = len(read(part).frames)
    assert 10 <= frames < 100
    assert f"{frames} frames" in str(caught.value)


def test_breaking_off_keeps_a_playable_part(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    def watch(now: banet_stream.Progress) -> None:
        if now.frames == 10:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"out\.part\.mp4"):
        process(clip(frames=100), tmp_path / "out.mp4", matter=matter, progress=watch)
    assert len(read(tmp_path / "out.part.mp4").frames) == 10


def test_an_older_part_file_is_not_overwritten(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    (tmp_path / "out.part.mp4").write_text("from an interrupted run")
    process(clip(), tmp_path / "out.mp4", matter=matter)
    assert (tmp_path / "out.part.mp4").read_text() == "from an interrupted run"
    assert len(read(tmp_path / "out.mp4").frames) == 12


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_a_result_that_can_not_be_moved_is_named(
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
) -> None:
    """As over an immutable file: the permission to write in the folder tells nothing of it."""
    source, output = clip(frames=3), tmp_path / f"out{suffix}"
    if suffix == ".png":
        source = tmp_path / "in.png"
        Image.new("RGB", (64, 48), "red").save(source)
    output.write_text("mine")

    def replace(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", replace)
    arguments = [str(source), "-o", str(output), "--overwrite", "--device", "cpu", "--size", "64"]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == OutputError.exit_code
    part = tmp_path / f"out.part{suffix}"
    assert f"{output}: can't be written: Operation not permitted; the result is in {part}" in (
        capsys.readouterr().err
    )
    assert output.read_text() == "mine"
    assert part.stat().st_size > 0


def test_output_is_never_the_input_or_background(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(clip().read_bytes())
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    before = source.read_bytes()
    allow = EncodeOptions(overwrite=True)
    for output in (source, link):
        with pytest.raises(OutputError, match="is INPUT itself"):
            process(source, output, matter=matter, encoding=allow)
    with pytest.raises(OutputError, match="is the background itself"):
        process(clip(), source, background=str(source), matter=matter, encoding=allow)
    roundabout = tmp_path / "folder" / ".." / "in.mp4"
    roundabout.parent.parent.mkdir()
    live = LiveOptions(realtime=True, overwrite=True)
    with pytest.raises(OutputError, match="is INPUT itself"):
        process_live(str(source), str(roundabout), background="green", matter=matter, options=live)
    with pytest.raises(OutputError, match="is the background itself"):
        process_live(str(clip()), str(link), background=str(source), matter=matter, options=live)
    assert source.read_bytes() == before
    assert link.is_symlink()

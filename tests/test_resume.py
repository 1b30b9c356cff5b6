"""``--resume``: killed at random moments, the result is that of a run left in peace."""

from __future__ import annotations

import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import read, tone
from PIL import Image
from test_cli import FAST

from banet_stream import EncodeOptions, InputError, Matter, Progress, process
from banet_stream.errors import Interrupted, OutputError
from banet_stream.segments import Segments, reorder_depth

Clip = Callable[..., Path]
VARIABLE = tuple(int(40 * i + 7 * (i % 5) + (300 if i > 30 else 0)) for i in range(45))


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banet_stream.resume.SEGMENT_FRAMES", 10)


@pytest.fixture(scope="module")
def small_matter() -> Matter:
    """Without regions: one is chosen anew at the joint, and edges look a little otherwise in another."""
    return Matter(device="cpu", precision="float32", size=64, regions=False)


def stop_after(frames: int) -> Callable[[Progress], None]:
    def watch(now: Progress) -> None:
        if now.frames >= frames:
            raise KeyboardInterrupt

    return watch


def times(path: Path) -> list[tuple[int, float, float]]:
    """Of every packet: stream, decoding time, time of display."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.size]
        return [(p.stream.index, float(p.dts * p.time_base), float(p.pts * p.time_base)) for p in packets]


@pytest.mark.parametrize(
    ("spec", "suffix", "encoding", "background"),
    [
        ({"audio": "aac"}, ".mp4", EncodeOptions(), "green"),
        ({"audio": "aac", "pts": VARIABLE}, ".mp4", EncodeOptions(), "green"),
        ({"pts": VARIABLE}, ".mov", EncodeOptions("hevc"), "green"),
        # Finer than by default, so that other key frames change little.
        ({"audio": "aac", "rate": Fraction(24000, 1001)}, ".webm", EncodeOptions(crf=15), "transparent"),
        ({"audio": "aac"}, ".mkv", EncodeOptions("av1", crf=15), "green"),
        ({}, ".mov", EncodeOptions(), "transparent"),
    ],
)
def test_interrupted_and_resumed_is_as_never_interrupted(
    clip: Clip,
    small_matter: Matter,
    tmp_path: Path,
    spec: dict[str, object],
    suffix: str,
    encoding: EncodeOptions,
    background: str,
) -> None:
    source, whole, output = clip(frames=45, **spec), tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    options = {"background": background, "matter": small_matter, "encoding": encoding}
    process(source, whole, **options)
    with pytest.raises(Interrupted, match=r"from where the same command goes on"):
        process(source, output, resume=True, progress=stop_after(17), **options)
    assert not output.exists()
    summary = process(source, output, resume=True, **options)
    assert summary.resumed_frames >= 10
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([whole.name, output.name])
    before, after = read(whole), read(output)
    assert len(after.frames) == len(before.frames) == 45
    assert after.pts_seconds == before.pts_seconds
    assert after.audio_packets == before.audio_packets
    assert after.audio_seconds == before.audio_seconds
    for index in {t[0] for t in times(output)}:
        decoding = [t for t in times(output) if t[0] == index]
        assert all(b[1] > a[1] for a, b in pairwise(decoding))
        assert all(t[1] <= t[2] + 1e-9 for t in decoding)
    for a, b in zip(before.frames, after.frames, strict=True):
        difference = np.subtract(*(f.to_ndarray(format="gray").astype(float) for f in (a, b)))
        assert (difference**2).mean() < 12  # 37 dB: other key frames, the same picture


def test_a_background_video_goes_on_too(clip: Clip, small_matter: Matter, tmp_path: Path) -> None:
    behind = tmp_path / "steps.mkv"
    with av.open(str(behind), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 128, "yuv420p"
        for level in range(0, 250, 5):
            picture = Image.new("RGB", (96, 128), (level, level, level))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    source, output = clip(frames=40), tmp_path / "out.mp4"
    options = {"background": str(behind), "matter": small_matter, "resume": True}
    with pytest.raises(Interrupted):
        process(source, output, progress=stop_after(25), **options)
    process(source, output, **options)
    shown = [f.to_ndarray(format="rgb24")[2:10, 2:10].mean() for f in read(output).frames]
    assert np.abs(np.array(shown) - np.arange(40) * 5).max() < 4


def start(source: Path, output: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    code = "import banet_stream.resume as r; r.SEGMENT_FRAMES = 10; from banet_stream import cli; cli.main()"
    words = [str(source), "-o", str(output), "--bg", "green", "--resume", *FAST, *more]
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_killed_at_random_moments(clip: Clip, tmp_path: Path) -> None:
    generator = random.Random(5)
    source, output = clip(frames=150, audio="aac", noise=True), tmp_path / "out.mp4"
    folder = tmp_path / "out.mp4.resume"
    finished: dict[str, int] = {}
    for _ in range(3):
        process_ = start(source, output)
        known = len(finished)
        deadline = time.monotonic() + 90
        while process_.poll() is None and time.monotonic() < deadline:
            if len(list(folder.glob("*.segment"))) > known:
                time.sleep(generator.uniform(0, 0.4))
                break
            time.sleep(0.01)
        process_.send_signal(signal.SIGKILL)
        process_.communicate(timeout=60)
        now = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.segment")}
        if not output.exists():
            assert finished.items() <= now.items()  # none was made again
            assert len(now) > 0
        finished = now
        if output.exists():  # it was faster
            break
    if folder.exists():  # where OUTPUT is there, too, it was removing what it needed no more
        process_ = start(source, output, *["--overwrite"] * output.exists())
        _, err = process_.communicate(timeout=120)
        assert process_.returncode == 0, err
        assert not finished or f"went on after the {10 * len(finished)} frames" in err
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    whole = tmp_path / "whole.mp4"
    process(source, whole, background="green", matter=Matter(device="cpu", size=64))
    before, after = read(whole), read(output)
    assert after.pts_seconds == before.pts_seconds
    assert after.audio_packets == before.audio_packets
    assert after.audio_seconds == before.audio_seconds


def test_killed_while_joining(
    clip: Clip, small_matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All segments are there, the joined file is half written: only the joining is done again."""
    source, output = clip(frames=25, audio="aac"), tmp_path / "out.mp4"

    def fail(self: object) -> None:
        (tmp_path / "out.mp4.resume" / "joined.mp4").write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("banet_stream.resume.ResumableSink._join", fail)
        with pytest.raises(OutputError, match="give the same command: it goes on"):
            process(source, output, matter=small_matter, resume=True)
    summary = process(source, output, matter=small_matter, resume=True, verify=True)
    assert summary.resumed_frames == summary.frames == 25
    assert not summary.verification.broken
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_no_room_to_join(clip: Clip, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: each segment fits, the joined file does not."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    source, output = clip(frames=100, audio="pcm_s16le", suffix=".mov"), tmp_path / "out.mov"
    process_ = start(source, output, preexec_fn=limit)
    _, err = process_.communicate(timeout=120)
    assert process_.returncode == OutputError.exit_code, err
    assert f"{output}: can't be written" in err
    assert "Traceback" not in err
    left = [p.name for p in (tmp_path / "out.mov.resume").iterdir()]
    assert sorted(left) == [*(f"{n:06d}.segment" for n in range(1, 11)), "lock", "run.json"]


def test_killed_while_removing(
    clip: Clip, small_matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUTPUT is there, and some segments still are: the first ones, so that nothing is lost in between."""
    source, output = clip(frames=45), tmp_path / "out.mp4"
    unlink, gone = Path.unlink, []

    def die(path: Path, **options: bool) -> None:
        if len(gone) == 2:
            raise KeyboardInterrupt
        unlink(path, **options)
        gone.append(path.name)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises((KeyboardInterrupt, Interrupted)):
            process(source, output, matter=small_matter, resume=True)
    assert output.exists()
    assert gone == ["000005.segment", "000004.segment"]
    again = EncodeOptions(overwrite=True)
    summary = process(source, output, matter=small_matter, resume=True, encoding=again, verify=True)
    assert (summary.resumed_frames, summary.frames) == (30, 45)
    assert not summary.verification.broken
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_stop_joins_nothing(clip: Clip, small_matter: Matter, tmp_path: Path) -> None:
    """The first Ctrl-C: what was encoded becomes a segment, and the folder with them is named."""
    source, output, stop = clip(frames=100, audio="aac"), tmp_path / "out.mp4", threading.Event()

    def watch(now: Progress) -> None:
        if now.frames == 15:
            stop.set()

    with pytest.raises(Interrupted, match=r"\d+ frames are in .*out\.mp4\.resume, from where") as caught:
        process(source, output, matter=small_matter, resume=True, progress=watch, stop=stop)
    kept = int(re.search(r"(\d+) frames", str(caught.value))[1])
    folder = tmp_path / "out.mp4.resume"
    assert not list(folder.glob("joined*"))
    summary = process(source, output, matter=small_matter, resume=True)
    assert (summary.resumed_frames, summary.frames) == (kept, 100)


def interrupted(clip: Clip, matter: Matter, output: Path) -> Path:
    with pytest.raises(Interrupted):
        process(clip(frames=40), output, matter=matter, resume=True, progress=stop_after(20))
    return output.with_name(f"{output.name}.resume")


def test_another_command_is_refused(clip: Clip, small_matter: Matter, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    folder = interrupted(clip, small_matter, output)
    before = sorted(folder.glob("*.segment"))
    for options, word in (
        ({"background": "red"}, "--bg"),
        ({"encoding": EncodeOptions(crf=30)}, "--crf"),
        ({"start_seconds": 0.5}, "--start"),
    ):
        with pytest.raises(OutputError, match=f"another run \\(different: {word}\\)"):
            process(clip(frames=40), output, matter=small_matter, resume=True, **options)
    with pytest.raises(OutputError, match="different: INPUT"):
        process(clip(frames=41), output, matter=small_matter, resume=True)
    assert sorted(folder.glob("*.segment")) == before
    process(clip(frames=40), output, matter=small_matter, resume=True)
    assert len(read(output).frames) == 40


def test_another_background_under_the_same_name_is_refused(
    clip: Clip, small_matter: Matter, tmp_path: Path
) -> None:
    room, output = tmp_path / "room.png", tmp_path / "out.mp4"
    Image.new("RGB", (8, 8), "red").save(room)
    options = {"background": str(room), "matter": small_matter, "resume": True}
    with pytest.raises(Interrupted):
        process(clip(frames=40), output, progress=stop_after(20), **options)
    Image.new("RGB", (9, 9), "blue").save(room)
    with pytest.raises(OutputError, match="different: --bg"):
        process(clip(frames=40), output, **options)


def test_a_folder_that_a_crash_left_empty_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "o.mp4.resume"
    folder.mkdir()
    (folder / "run.json").write_bytes(b"")
    Segments(tmp_path / "o.mp4", {"a": "b"}).close()
    assert not folder.exists()
    folder.mkdir()
    (folder / "run.json").write_text("{")
    (folder / "000001.segment").write_bytes(b"")
    with pytest.raises(OutputError, match=r"run\.json: is damaged; remove .*o\.mp4\.resume"):
        Segments(tmp_path / "o.mp4", {"a": "b"})


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "o.mp4.resume").touch()
    with pytest.raises(OutputError, match="is a file; --resume needs a folder of that name"):
        Segments(tmp_path / "o.mp4", {"a": "b"})


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    first = Segments(tmp_path / "o.mp4", {"a": "b"})
    with pytest.raises(OutputError, match="another run is at work"):
        Segments(tmp_path / "o.mp4", {"a": "b"})
    first.close()
    assert not list(tmp_path.iterdir())  # nothing was in it


@pytest.mark.parametrize(
    ("output", "options"),
    [("%d.png", {}), ("-", {}), ("o.mp4", {"alpha_out": "matte.mp4"})],
)
def test_what_can_not_be_resumed(clip: Clip, tmp_path: Path, output: str, options: dict[str, str]) -> None:
    target = output if output == "-" else tmp_path / output
    with pytest.raises(OutputError, match="--resume: works for a video file"):
        process(clip(), target, resume=True, **options)
    assert not list(tmp_path.iterdir())


def test_nothing_to_decode_leaves_no_folder(tmp_path: Path, small_matter: Matter) -> None:
    source = tmp_path / "none.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        container.mux(sound.encode(tone(0, 48000)))
        container.mux(sound.encode(None))
    with pytest.raises(InputError, match="no video frame"):
        process(source, tmp_path / "o.mp4", matter=small_matter, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["none.mkv"]


def test_reordering() -> None:
    assert reorder_depth([0, 1, 2, 3]) == 0
    assert reorder_depth([0, 4, 2, 1, 3]) == 2

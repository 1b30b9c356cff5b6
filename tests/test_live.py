"""Live runs from a source that plays at its own pace to a file that is read back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import read
from torch import Tensor

from banet_stream import Matter, cli, kinds
from banet_stream.background import Background, Plain
from banet_stream.capture import LiveFrame
from banet_stream.contract import LATE, NEWER, SLATE, Contract
from banet_stream.cover import Cover
from banet_stream.errors import InputError, MatteError, OutputError, UsageError
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame
from banet_stream.live import LiveOptions, LiveSummary, matte_or_cover, process_live
from banet_stream.publish import PublishOptions, Pulse

Clip = Callable[..., Path]
# 25 fps of something that moves, with a person nowhere: what comes out is background.
CAMERA = "lavfi:testsrc2=size=96x64:rate=25"
# A room full of detail: nothing of it may be seen when there is no matte.
ROOM = (
    "lavfi:nullsrc=size=160x120:rate=25,geq="
    "lum='if(mod(floor((X+N)/4)+floor(Y/4),2),220,30)':cb=128:cr=128,format=yuv420p"
)
ROOM_DETAIL, HIDDEN_DETAIL = 20.0, 3.0
SECONDS = 1.5


class Engine:
    """In place of the network: a matte without a person, after ``act`` had its way."""

    name, precision, device = "stub", "float32", torch.device("cpu")

    def __init__(self, act: Callable[[int], Tensor | None] = lambda _: None) -> None:
        self.act, self.calls = act, 0

    def __call__(self, image: Tensor) -> Tensor:
        self.calls += 1
        wrong = self.act(self.calls)
        return torch.zeros(1, 1, *image.shape[2:]) if wrong is None else wrong


@pytest.fixture
def stub() -> Callable[..., Matter]:
    """``stub(act)``: a Matter whose network is an Engine."""

    def make(act: Callable[[int], Tensor | None] = lambda _: None) -> Matter:
        made = Matter(device="cpu", precision="float32", size=64)
        made.engine = Engine(act)  # type: ignore[assignment]
        return made

    return make


def run(source: str, output: Path | str | None, matter: Matter, **wanted: object) -> LiveSummary:
    background = wanted.pop("background", "green")
    watch = wanted.pop("watch", None)
    options = replace(LiveOptions(duration_seconds=SECONDS), **wanted)
    return process_live(
        source,
        None if output is None else str(output),
        background=background,
        matter=matter,
        options=options,
        watch=watch,
    )


def detail(frame: av.VideoFrame) -> float:
    """Mean step between neighbours in a row: much in a room of tiles, little in a blur."""
    luma = frame.to_ndarray(format="gray").astype(int)
    return float(np.abs(np.diff(luma, axis=1)).mean())


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_camera_to_a_file(stub: Callable[..., Matter], tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    summary = run(CAMERA, output, stub())
    whole = summary.contract.whole
    after = read(output)
    assert whole.shown == len(after.frames) >= 5
    assert whole.captured - whole.shown - sum(whole.dropped.values()) in (0, 1, 2)  # on their way at the end
    assert all(b > a for a, b in zip(after.pts_seconds, after.pts_seconds[1:], strict=False))
    assert after.pts_seconds[-1] - after.pts_seconds[0] < SECONDS + 10  # and what opening the sink took
    assert 0 < whole.latency_ms(0.5) <= whole.latency_ms(0.99) < 10_000
    assert not summary.broken_off
    assert summary.encoder == "libx264"
    picture = after.frames[-1].to_ndarray(format="rgb24")
    assert np.abs(picture.reshape(-1, 3).mean(0) - (0, 128, 0)).max() < 12


def test_slower_than_real_time_drops_frames_and_does_not_lag(
    stub: Callable[..., Matter], tmp_path: Path
) -> None:
    def slow(_: int) -> None:
        time.sleep(0.15)

    publish = PublishOptions(deadline_seconds=30)
    summary = run(CAMERA, tmp_path / "o.mkv", stub(slow), duration_seconds=4.0, publish=publish)
    whole = summary.contract.whole
    assert whole.dropped[NEWER] > whole.shown  # 25 fps in, less than 7 out
    # Without dropping, the last of these frames would be 3 s late.
    assert whole.latency_ms(0.95) < 1500


def test_never_drop(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    def slow(_: int) -> None:
        time.sleep(0.05)

    publish = PublishOptions(deadline_seconds=30)
    summary = run(
        str(clip(frames=30)), tmp_path / "o.mkv", stub(slow), realtime=True, drop="never",
        duration_seconds=60.0, publish=publish,
    )  # fmt: skip
    assert summary.contract.whole.captured == 30
    assert summary.contract.whole.dropped[NEWER] == 0


def test_a_recording_keeps_its_pace_and_ends(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    began = time.monotonic()
    summary = run(
        str(clip(frames=30, audio="aac")), tmp_path / "o.mp4", stub(), realtime=True, duration_seconds=60
    )
    assert 1.1 < time.monotonic() - began < 30  # 30 frames at 25 fps
    assert summary.contract.whole.captured == 30


def test_sound_passes_in_step(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    source, output = clip(frames=50, audio="aac"), tmp_path / "o.mp4"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    before, after = read(source), read(output)
    lost = before.audio_packets.index(after.audio_packets[0])  # before the first picture
    assert after.audio_packets == before.audio_packets[lost : lost + len(after.audio_packets)]  # copied
    assert len(after.audio_packets) >= len(before.audio_packets) - 8
    # The same distance between sound and picture as before.
    shift = after.audio_seconds[0] - before.audio_seconds[lost]
    pictures = {round(t + shift, 2) for t in before.pts_seconds}
    assert sum(round(t, 2) in pictures or round(t + 0.01, 2) in pictures or round(t - 0.01, 2) in pictures
               for t in after.pts_seconds) >= len(after.pts_seconds) - 1  # fmt: skip


def test_sound_is_encoded_anew_where_it_can_not_be_copied(
    stub: Callable[..., Matter], clip: Clip, tmp_path: Path
) -> None:
    source = clip(frames=50, audio="libopus", suffix=".mkv")
    output = tmp_path / "o.ts"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = list(container.decode(audio=0))
    seconds = sum(f.samples / f.sample_rate for f in heard)
    assert 1.5 < seconds < 2.3
    assert max(np.abs(f.to_ndarray()).max() for f in heard) > 0.05  # a tone, not silence
    steps = np.diff([f.time for f in heard])[2:]  # after the encoder's and the decoder's priming
    assert steps == pytest.approx(np.full(len(steps), 1024 / 48000), abs=2e-3)


def test_the_preview_alone_needs_no_output(stub: Callable[..., Matter]) -> None:
    seen: list[LiveFrame] = []
    summary = run(CAMERA, None, stub(), watch=seen.append)
    assert len(seen) == summary.contract.whole.shown >= 5


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match=r"drop must be one of oldest, never, got 'newest'"):
        LiveOptions(drop="newest")


def test_a_source_that_is_not_there_ends_at_once(stub: Callable[..., Matter], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        run(str(tmp_path / "none.mp4"), tmp_path / "o.mp4", stub(), realtime=True)
    with pytest.raises(InputError, match=r"Connection refused"):
        run("rtsp://user:hunter2@127.0.0.1:1/x", tmp_path / "o.mp4", stub())
    with pytest.raises(InputError, match=r"has no SRT; use rtsp://"):
        run("srt://127.0.0.1:1", tmp_path / "o.mp4", stub())
    assert not list(tmp_path.iterdir())


def test_a_sink_that_is_not_there_ends_at_once(stub: Callable[..., Matter]) -> None:
    for url, why in (
        ("rtsp://user:hunter2@127.0.0.1:1/x", "Connection refused"),
        ("rtmp://127.0.0.1:1/app/hunter2", "Connection refused"),
        ("srt://127.0.0.1:1", "Protocol not found"),
    ):
        with pytest.raises(OutputError, match=why) as caught:
            run(CAMERA, url, stub(), duration_seconds=30)
        assert "hunter2" not in str(caught.value)


# --- fail closed -------------------------------------------------------------------------------


def matte_error(_: int) -> None:
    raise MatteError("the network failed")


def out_of_memory(_: int) -> None:
    raise RuntimeError("CUDA out of memory")


def no_memory(_: int) -> None:
    raise MemoryError


def bug(_: int) -> None:
    raise AssertionError("a bug of ours")


def not_a_number(_: int) -> Tensor:
    return torch.full((1, 1, 64, 64), float("nan"))


def wrong_shape(_: int) -> Tensor:
    return torch.ones(3)


def every_other(fails: Callable[[int], Tensor | None]) -> Callable[[int], Tensor | None]:
    return lambda call: fails(call) if call % 2 else None


@pytest.mark.parametrize("cover", ["blur", "slate"])
@pytest.mark.parametrize(
    "fails",
    [matte_error, out_of_memory, no_memory, bug, not_a_number, wrong_shape, every_other(matte_error)],
)
def test_no_matte_no_room(
    stub: Callable[..., Matter], tmp_path: Path, fails: Callable[[int], Tensor | None], cover: str
) -> None:
    """Every frame of the output is looked at."""
    output = tmp_path / "o.mkv"
    summary = run(ROOM, output, stub(fails), cover=cover, slate="red")
    shown = read(output).frames
    assert len(shown) >= 5
    assert sum(summary.contract.whole.covered.values()) >= 2
    for frame in shown:
        assert detail(frame) < HIDDEN_DETAIL


def test_the_room_would_show_if_it_were_let_through(stub: Callable[..., Matter], tmp_path: Path) -> None:
    """That the tests around this one can fail: a matte of all person shows everything."""
    output = tmp_path / "o.mkv"
    run(ROOM, output, stub(lambda _: torch.ones(1, 1, 192, 256)))
    assert all(detail(f) > ROOM_DETAIL for f in read(output).frames)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_network_that_overflows_shows_no_room(tmp_path: Path, value: float) -> None:
    """An infinite logit is a matte of 1, all person: the real engine must not let it through."""
    matter = Matter(device="cpu", precision="float32", size=64, engine="torch")
    with torch.no_grad():
        matter.engine.network.head.bias.fill_(value)
    output = tmp_path / "o.mkv"
    summary = run(ROOM, output, matter)
    assert summary.contract.whole.covered["MatteError"] >= 2
    assert all(detail(f) < HIDDEN_DETAIL for f in read(output).frames)


class BrokenBackground(Background):
    def planes(self, frame: Frame, alpha: Tensor) -> list[Tensor]:
        raise OSError("the disk with the picture is gone")


def test_a_background_that_fails_shows_no_room(stub: Callable[..., Matter], tmp_path: Path) -> None:
    output = tmp_path / "o.mkv"
    run(ROOM, output, stub(), background=BrokenBackground())
    frames = read(output).frames
    assert len(frames) >= 5
    assert all(detail(f) < HIDDEN_DETAIL for f in frames)


def test_late_frames_go_out_hidden(stub: Callable[..., Matter], tmp_path: Path) -> None:
    def slow(_: int) -> Tensor:
        time.sleep(0.3)
        return torch.ones(1, 1, 192, 256)

    output = tmp_path / "o.mkv"
    publish = PublishOptions(deadline_seconds=0.25)
    summary = run(
        ROOM, output, stub(slow), publish=publish, duration_seconds=3.0, background=Plain((0, 0, 0))
    )
    assert summary.contract.whole.dropped[LATE] >= 3
    assert summary.contract.whole.shown == 0
    frames = read(output).frames
    assert len(frames) >= 3
    assert all(detail(f) < HIDDEN_DETAIL for f in frames)


def test_a_network_that_hangs_shows_the_slate_and_does_not_stop_the_end(
    stub: Callable[..., Matter], tmp_path: Path
) -> None:
    release = threading.Event()

    def hang(call: int) -> None:
        if call > 5:
            release.wait(60)

    output = tmp_path / "o.mkv"
    publish = PublishOptions(deadline_seconds=0.5, gap_seconds=30)
    began = time.monotonic()
    try:
        summary = run(ROOM, output, stub(hang), slate="red", duration_seconds=3.0, publish=publish)
        assert time.monotonic() - began < 3 + 2 + 3
    finally:
        release.set()
    assert summary.broken_off
    assert summary.contract.whole.fillers[SLATE] >= 3
    frames = read(output).frames
    assert all(detail(f) < HIDDEN_DETAIL for f in frames)
    red = frames[-1].to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
    assert red[0] > 200
    assert red[1] < 60


def test_an_error_is_not_held_up_by_a_network_that_hangs(stub: Callable[..., Matter]) -> None:
    release = threading.Event()

    def hang(call: int) -> None:
        if call > 1:
            release.wait(60)

    try:
        with pytest.raises(OutputError, match="Connection refused"):
            run(ROOM, "rtsp://127.0.0.1:1/x", stub(hang), duration_seconds=60.0)
    finally:
        release.set()


def test_after_a_gap_the_matte_starts_anew(stub: Callable[..., Matter]) -> None:
    matter = stub()
    stream = matter.stream()
    resets: list[int] = []
    stream.reset = lambda: resets.append(1)  # type: ignore[method-assign]
    grey = [torch.full(s, 128, dtype=torch.uint8) for s in ((64, 96), (32, 48), (32, 48))]
    colour = Colour("bt601", False, 6, 6, 6)
    first = LiveFrame(grey, PIXEL_FORMATS["yuv420p"], colour, 0, Fraction(1, 90_000))
    frames = [first, replace(first, pts=1), replace(first, pts=2, after_gap=True)]
    done = matte_or_cover(frames, stream, Plain((0, 128, 0)), Cover("blur"), Contract("x"), Pulse())
    assert [f.pts for f in done if isinstance(f, LiveFrame)] == [0, 1, 2]
    assert len(resets) == 1


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        line = [
            sys.executable,
            "-m",
            "banet_stream",
            *(str(w) for w in words),
            "--device",
            "cpu",
            "--size",
            "64",
        ]
        started.append(
            subprocess.Popen(
                line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_frames(path: Path, count: int = 5) -> None:
    """Until so many frames can be read out of a file that is being written."""
    deadline = time.monotonic() + 80
    while time.monotonic() < deadline:
        with contextlib.suppress(av.FFmpegError, OSError):
            if len(read(path).frames) >= count:
                return
        time.sleep(0.1)
    raise AssertionError(f"no {count} frames in {path}")


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Runs the command in this process: exit code, and all that it printed."""
    with pytest.raises(SystemExit) as left:
        cli.main([*(str(w) for w in words), "--device", "cpu", "--size", "64"])
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out + captured.err


def test_sigterm_ends_in_order(command: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    output = tmp_path / "o.mp4"
    process = command(CAMERA, "-o", output, "--bg", "green", "--stats", "--stats-every", "1")
    wait_for_frames(output)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    # 2 s is the promise; what else the machine does meanwhile is not ours.
    assert time.monotonic() - asked < 6
    assert process.returncode == 0, err
    assert "latency p99 ms" in out
    assert "matte: banet64" in out
    assert "network" in out
    assert "latency p99 ms" in err  # while it ran
    assert "Traceback" not in err
    assert len(read(output).frames) >= 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_crash_leaves_a_playable_file(
    command: Callable[..., subprocess.Popen[str]], tmp_path: Path, suffix: str
) -> None:
    """The tool and its writer are killed, and what lies on the disk is read."""
    output, copied = tmp_path / f"o{suffix}", tmp_path / f"copy{suffix}"
    process = command(CAMERA, "-o", output, "--bg", "green")
    wait_for_frames(output)
    copied.write_bytes(output.read_bytes())  # as a crash of the machine would leave it
    process.kill()
    process.communicate(timeout=30)
    assert len(read(copied).frames) >= 5
    time.sleep(1)  # the writer ends by itself
    assert len(read(output).frames) >= len(read(copied).frames)


def test_no_password_is_shown(
    command: Callable[..., subprocess.Popen[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    process = command("rtsp://user:hunter2@127.0.0.1:1/x", "-o", tmp_path / "o.mp4", "-v")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Traceback" in err  # as -v asks for
    assert "hunter2" not in out + err
    for url in ("rtsp://user:hunter2@127.0.0.1:1/x", "rtmp://127.0.0.1:1/app/hunter2"):
        code, said = call(capsys, CAMERA, "-o", url)
        assert code == 5
        assert "hunter2" not in said
        assert "Connection refused" in said


def test_the_relay_has_no_url_in_the_process_list(
    command: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    output = tmp_path / "secret-name.mkv"
    process = command(CAMERA, "-o", output)
    wait_for_frames(output, 1)
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = {pid for file in children for pid in file.read_text().split()}
    assert pids
    for pid in pids:
        assert b"secret-name" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["webcam", "-o", "o.mp4"], 3, "no webcam on this machine"),
        (["0", "-o", "o.mp4"], 3, "no such webcam"),
        ([CAMERA, "-o", "o.mp4", "--codec", "vp9"], 2, "live output is h264"),
        ([CAMERA, "-o", "o.mp4", "--start", "3"], 2, "only for files"),
        ([CAMERA, "-o", "o.mp4", "--retries", "-1"], 2, "must be 0"),
        (["in.mp4", "-o", "o.mp4", "--gap", "last"], 2, "--gap: only for live runs"),
    ],
)
def test_mistakes_are_told(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kinds, "DEVICES", tmp_path)  # as on a machine without a webcam
    left, said = call(capsys, *words)
    assert left == code
    assert message in said
    assert len(said.splitlines()) == 1


def test_neither_output_nor_preview(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, CAMERA)
    assert code == 2
    assert "-o/--output" in said

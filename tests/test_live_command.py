"""The live side of the command: its end, its crash, what it says and what it must not say."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from conftest import read
from live_runs import CAMERA

from banet_stream import cli, kinds


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

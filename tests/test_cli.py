"""The command as a stranger uses it: real processes where exit codes and signals matter."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
from conftest import importing, read

from banet_stream import __version__, cli, errors

Clip = Callable[..., Path]
FAST = ["--device", "cpu", "--size", "64"]


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Runs the command in this process: exit code, standard output, standard error."""
    try:
        cli.main([str(w) for w in words])
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def start(*words: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "banet_stream", *(str(w) for w in words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        **options,
    )


def test_the_main_job(clip: Clip, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    process = start(clip(audio="aac"), "-o", output, "--bg", "green", "--stats", *FAST)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"{output}: 12 frames" in out
    for word in ("decode", "matte", "network", "composite", "encode", "end to end", "libx264"):
        assert word in out
    assert not err
    after = read(output)
    assert len(after.frames) == 12
    assert after.audio_packets


def test_quiet_says_nothing(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, clip(), "-o", tmp_path / "o.mp4", "-q", *FAST) == (0, "", "")


def test_plain_progress_when_piped(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PLAIN_PROGRESS_SECONDS", 0.0)
    _, _, err = call(capsys, clip(), "-o", tmp_path / "o.mp4", *FAST)
    assert re.search(r"^6 of 12 frames, \d+\.\d fps, \d+ s left$", err, re.MULTILINE)


def test_a_bar_on_a_terminal(clip: Clip, tmp_path: Path) -> None:
    import pty
    import termios

    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    command = [sys.executable, "-m", "banet_stream", str(clip()), "-o", str(tmp_path / "o.mp4"), *FAST]
    on_terminal = subprocess.Popen(command, stderr=child, stdout=subprocess.DEVNULL)
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    assert on_terminal.wait(60) == 0
    os.close(parent)
    assert b"12/12" in shown
    assert b"frames/s" in shown


def test_readme_holds_the_help() -> None:
    """Every option and its text; how argparse breaks the lines differs between Python versions."""
    readme = " ".join((Path(__file__).parent.parent / "README.md").read_text().split())
    parser = cli.build_parser()
    for action in parser._actions:
        for option in action.option_strings:
            assert option in readme
        assert " ".join(str(action.help).replace("%%", "%").split()) in readme
    for text in (f"``` usage: {parser.usage}", parser.epilog):
        assert " ".join(str(text).split()) in readme


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version")[:2] == (0, f"banet-stream {__version__}\n")


def test_exit_codes_are_all_different_and_documented() -> None:
    codes = {
        k: v.exit_code for k, v in vars(errors).items() if isinstance(v, type) and hasattr(v, "exit_code")
    }
    assert len(set(codes.values())) == len(codes)
    for code in codes.values():
        assert f" {code} " in cli.EPILOG.replace("\n", " ")


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    for word in ("torch", "PyAV", "banet64", "libx264", "operators", "ready"):
        assert word in out


def test_doctor_fails_when_the_job_can_not_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor", "--device", "nonsense")
    assert code == 1
    assert "BROKEN" in out


def cut(path: Path, clip: Clip) -> Path:
    content = clip(frames=60).read_bytes()
    path.write_bytes(content[: content.index(b"moov")])
    return path


def write(path: Path, text: str = "") -> Path:
    path.write_text(text)
    return path


FAILURES = {  # exit code, message, arguments (T: the test's folder, C: clips)
    "missing input": (3, "no such file", lambda t, c: [t / "none.mp4", "-o", t / "o.mp4"]),
    "directory": (3, "is a directory", lambda t, c: [t, "-o", t / "o.mp4"]),
    "renamed text": (3, "not a video", lambda t, c: [write(t / "t.mp4", "hello\n" * 99), "-o", t / "o.mp4"]),
    "empty file": (3, "is empty", lambda t, c: [write(t / "t.mp4"), "-o", t / "o.mp4"]),
    "no index": (3, "cut off before its index", lambda t, c: [cut(t / "t.mp4", c), "-o", t / "o.mp4"]),
    "broken URL": (3, "can't be opened", lambda t, c: ["rtsp://127.0.0.1:9/x", "-o", t / "o.mp4"]),
    "no background": (4, "no such file", lambda t, c: [c(), "-o", t / "o.mp4", "--bg", t / "office.png"]),
    "text background": (4, "holds no frame", lambda t, c: [c(), "-o", t / "o.mp4", "--bg", write(t / "a.png", "x" * 99)]),
    "output exists": (5, "use --overwrite", lambda t, c: [c(), "-o", write(t / "o.mp4", "mine")]),
    "output is a directory": (5, "is a directory", lambda t, c: [c(), "-o", make_folder(t / "d.mp4")]),
    "output is input": (5, "is INPUT itself", lambda t, c: [copy(c(), t / "i.mp4"), "-o", t / "i.mp4", "--overwrite"]),
    "no directory": (5, "there is no directory", lambda t, c: [c(), "-o", t / "none" / "o.mp4"]),
    "no extension": (5, "extension must be one of", lambda t, c: [c(), "-o", t / "out"]),
    "unknown codec": (5, "must be one of h264", lambda t, c: [c(), "-o", t / "o.mp4", "--codec", "mpeg9"]),
    "codec and container": (5, ".webm can't hold it", lambda t, c: [c(), "-o", t / "o.webm", "--codec", "h264"]),
    "no CUDA": (6, "CUDA", lambda t, c: [c(), "-o", t / "o.mp4", "--device", "cuda:7"]),
    "no device": (6, "must be auto, cpu, cuda", lambda t, c: [c(), "-o", t / "o.mp4", "--device", "toaster"]),
    "precision": (6, "too slow on a CPU", lambda t, c: [c(), "-o", t / "o.mp4", "--device", "cpu", "--precision", "float16"]),
    "no model": (7, "neither a shipped model", lambda t, c: [c(), "-o", t / "o.mp4", "--model", "banet65"]),
    "damaged model": (7, "damaged", lambda t, c: [c(), "-o", t / "o.mp4", "--model", write(t / "m.safetensors", "x" * 50)]),
    "bad crf": (5, "between 0 and 51 for h264", lambda t, c: [c(), "-o", t / "o.mp4", "--crf", "77"]),
    "crf without one": (5, "has one quality", lambda t, c: [c(), "-o", t / "o.mov", "--codec", "prores", "--crf", "7"]),
    "no output": (2, "required", lambda t, c: [c()]),
    "bad time": (2, "a time is seconds", lambda t, c: [c(), "-o", t / "o.mp4", "--start", "soon"]),
    "bad rate": (2, "a rate is bits", lambda t, c: [c(), "-o", t / "o.mp4", "--bitrate", "fast"]),
    "bad size": (2, "between 64 and 4096", lambda t, c: [c(), "-o", t / "o.mp4", "--size", "7"]),
    "no duration": (2, "more than nothing", lambda t, c: [c(), "-o", t / "o.mp4", "--duration", "0"]),
    "start behind the end": (3, "lies behind its end", lambda t, c: [c(), "-o", t / "o.mp4", "--start", "9:00"]),
}  # fmt: skip


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copy(source, target))


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_line_and_a_code(
    name: str, clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message, make = FAILURES[name]
    words = make(tmp_path, clip)
    before = {p: p.is_dir() or p.read_bytes() for p in tmp_path.iterdir()}
    got, out, err = call(capsys, *words)
    assert got == code
    assert not out
    lines = [line for line in err.strip().splitlines() if not line.startswith("usage:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in err
    assert {p: p.is_dir() or p.read_bytes() for p in tmp_path.iterdir()} == before


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    process = start(tmp_path / "none.mp4", "-o", tmp_path / "o.mp4", "-v")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Traceback" in err


def test_no_permission(clip: Clip, tmp_path: Path) -> None:
    secret = copy(clip(), tmp_path / "secret.mp4")
    secret.chmod(0)
    locked = make_folder(tmp_path / "locked")
    locked.chmod(0o500)
    limits = "-dac_override,-dac_read_search"  # without these, root too is bound by permissions
    bound = ["setpriv", "--bounding-set", limits, "--inh-caps", limits] if os.geteuid() == 0 else []
    for words, code, message in (
        ([secret, "-o", tmp_path / "o.mp4"], 3, "Permission denied"),
        ([clip(), "-o", locked / "o.mp4"], 5, "no permission to write"),
    ):
        command = [*bound, sys.executable, "-m", "banet_stream", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_full_disk(clip: Clip, tmp_path: Path) -> None:
    """A limit on the size of files stands in where no small disk can be mounted: the write fails alike."""
    folder = make_folder(tmp_path / "small")
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, 32_000))

    try:
        source = clip(frames=100, noise=True)
        process = start(
            source, "-o", folder / "o.mp4", "--crf", 1, *FAST, preexec_fn=None if mounted else limit
        )
        _, err = process.communicate(timeout=120)
        assert process.returncode == 5, err
        assert "disk is full" in err or "File too large" in err
        assert "Traceback" not in err
        assert not list(folder.iterdir())
    finally:
        if mounted:
            subprocess.check_call(["umount", str(folder)])


def test_ctrl_c_keeps_a_playable_part(clip: Clip, tmp_path: Path) -> None:
    process = start(clip(frames=3000), "-o", tmp_path / "out.mp4", *FAST)
    part = tmp_path / "out.part.mp4"
    deadline = time.monotonic() + 60
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the" in err
    assert str(part) in err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == [part.name]
    assert len(read(part).frames) > 0


def unread(pipe: IO[bytes]) -> int:
    """Bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_breaking_off_while_a_pipe_is_silent(clip: Clip, tmp_path: Path) -> None:
    """The thread that reads it waits in FFmpeg: it is left behind."""
    path, part = tmp_path / "pipe.ts", tmp_path / "out.part.mp4"
    os.mkfifo(path)
    process = start(path, "-o", tmp_path / "out.mp4", *FAST)
    content = clip(frames=100, noise=True, suffix=".ts").read_bytes()
    with path.open("wb", buffering=0) as pipe:
        pipe.write(content[: len(content) // 2])
        deadline = time.monotonic() + 60
        while (unread(pipe) or not part.exists()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("once more to break off" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == errors.Interrupted.exit_code
    assert f"are in {part}" in err
    assert "Traceback" not in err
    assert len(read(part).frames) > 0


def test_ctrl_c_while_the_command_still_imports(clip: Clip, tmp_path: Path) -> None:
    process = importing("torch", clip(), "-o", tmp_path / "out.mp4", *FAST)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("banet-stream: interrupted\n")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_exits_with_its_own_code(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(clip(frames=60, noise=True).read_bytes())
    begin = content.index(b"mdat") + len(content) // 3
    content[begin : begin + 4000] = bytes(4000)
    source, output = tmp_path / "damaged.mp4", tmp_path / "o.mp4"
    source.write_bytes(content)
    code, out, err = call(capsys, source, "-o", output, *FAST)
    assert code == 9
    assert "frames lost" in err
    assert str(output) in out
    assert len(read(output).frames) >= 20


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("0", 0)])
def test_times(text: str, value: float) -> None:
    assert cli.seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("4M", 4_000_000), ("800k", 800_000), ("1.5m", 1_500_000), ("5000", 5000)]
)
def test_rates(text: str, value: int) -> None:
    assert cli.bits_per_second(text) == value


def test_a_file_named_like_a_command(clip: Clip, tmp_path: Path) -> None:
    source = copy(clip(), tmp_path / "doctor")
    process = start("./doctor", "-o", "o.mp4", *FAST, cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert source.exists()


def test_public_names() -> None:
    import banet_stream

    assert banet_stream.__all__ == sorted(banet_stream.__all__)
    assert all(hasattr(banet_stream, name) for name in banet_stream.__all__)
    with pytest.raises(AttributeError, match="'banet_stream' has no attribute 'matter'"):
        _ = banet_stream.matter


def test_bench_prints_runs_and_stages(clip: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", str(clip(frames=4)), "--repeats", "2", "--size", "64"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "run 2: 4 frames in " in out
    assert "end to end" in out


def test_bench_refuses_what_it_can_not_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", str(tmp_path / "none.mp4")])
    assert stopped.value.code == 3
    assert "none.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "0"], "--size 0: Matter: size must be between 64 and 4096, got 0"),
        (["--threads", "-1"], "--threads -1: must be between 1 and "),
        (["--threads", "100000"], "this machine's cores, or 0 for all"),
        (["--light-wrap", "2"], "--light-wrap 2: must be between 0 and 1"),
    ],
)
def test_numbers_out_of_range_are_refused(
    words: list[str], says: str, clip: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(clip(frames=2)), "-o", str(tmp_path / "out.mp4"), *words])
    assert stopped.value.code in (2, 4)
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


WORDY = {
    "banet-stream": "from banet_stream import cli; cli.COMMANDS['doctor'] = lambda _: print('word ' * {}) or 0; "
    "cli.main(['doctor'])",
    "training": "from training.command import command\nwith command('evaluate'): print('word ' * {})",
}


def run_wordy(command: str, words: int, output: IO[str] | int) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", WORDY[command].format(words)]
    here = Path(__file__).parent.parent
    return subprocess.run(program, stdout=output, stderr=subprocess.PIPE, text=True, check=False, cwd=here)


@pytest.mark.parametrize("command", WORDY)
@pytest.mark.parametrize("words", [1, 100_000])  # written at the end, or on the way
def test_a_reader_of_a_commands_words_may_leave(words: int, command: str) -> None:
    """As ``head`` does."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run_wordy(command, words, writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", WORDY)
@pytest.mark.parametrize("words", [1, 100_000])
def test_a_commands_words_on_a_full_disk(words: int, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_wordy(command, words, full)
    assert done.returncode == 1
    assert done.stderr == "note: standard output can't be written: No space left on device\n"


def test_a_commands_own_errors_are_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Sequence[str]) -> int:
        raise FileNotFoundError("none")

    monkeypatch.setitem(cli.COMMANDS, "doctor", fail)
    with pytest.raises(FileNotFoundError):
        cli.main(["doctor"])

"""What a live run refuses before anything is opened, and what it must not harm."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from live_runs import CAMERA, OPTIONS, Running, run, stub_matter

from banet_stream import Matter, backends, live_cli, locks
from banet_stream.background import Transparent
from banet_stream.errors import BackgroundError, DeviceError, OutputError, UsageError
from banet_stream.kinds import output_place
from banet_stream.live import LiveOptions, claimed, process_live
from banet_stream.live_source import CaptureOptions
from banet_stream.locks import locked_beside
from banet_stream.publish import PublishOptions
from banet_stream.sinks import SinkOptions

Clip = Callable[..., Path]


@pytest.mark.parametrize("background", ["transparent", Transparent()])
def test_transparent_would_show_the_room(
    stub: Callable[..., Matter], tmp_path: Path, background: object
) -> None:
    with pytest.raises(BackgroundError, match="can't be transparent"):
        run(CAMERA, tmp_path / "o.mkv", stub(), background=background)
    assert not list(tmp_path.iterdir())


def test_a_playlist_that_is_read_is_not_written(
    stub: Callable[..., Matter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    playlist = tmp_path / "tv" / "index.m3u8"
    playlist.parent.mkdir()
    playlist.write_text("#EXTM3U\n")
    with pytest.raises(OutputError, match="is INPUT itself"):
        run("./tv/index.m3u8", "tv/", stub())
    assert playlist.read_text() == "#EXTM3U\n"


@pytest.mark.parametrize("folder", ["a:b", "100%d", "50%% off"])
def test_hls_into_any_folder(stub: Callable[..., Matter], tmp_path: Path, folder: str) -> None:
    run(CAMERA, f"{tmp_path / folder}/", stub())
    listed = [x for x in (tmp_path / folder / "index.m3u8").read_text().splitlines() if x[:1] != "#"]
    assert listed
    assert sorted(listed) == sorted(p.name for p in (tmp_path / folder).glob("*.ts"))


def test_a_playlist_beside_us(
    stub: Callable[..., Matter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(CAMERA, "50%d.m3u8", stub())
    listed = [x for x in Path("50%d.m3u8").read_text().splitlines() if x[:1] != "#"]
    assert listed
    assert all(Path(name).exists() for name in listed)


def test_a_folder_that_looks_like_a_playlist(tmp_path: Path) -> None:
    folder = tmp_path / "dd.m3u8"
    folder.mkdir()
    with pytest.raises(OutputError, match="is a directory; end it with /"):
        output_place(str(folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--alpha-out", "a.mkv"),
        ("--resume", None),
        ("--verify", None),
        ("--json", None),
        ("--encoder", "software"),
        ("--deinterlace", "on"),
    ],
)
def test_options_of_files(name: str, value: str | None) -> None:
    from banet_stream.cli import build_parser

    words = [CAMERA, "-o", "o.mkv", name, *([value] if value else [])]
    with pytest.raises(UsageError, match=f"{name}: only for files"):
        live_cli.live_options(build_parser().parse_args(words))


def test_a_file_belongs_to_one_run(tmp_path: Path) -> None:
    path = tmp_path / "o.mkv"
    with claimed(path):
        with pytest.raises(OutputError, match="--overwrite"), claimed(path):
            pass
        path.write_bytes(b"something")
    assert path.exists()
    with claimed(tmp_path / "empty.mkv"):
        pass
    assert not (tmp_path / "empty.mkv").exists()


def test_a_file_that_is_replaced_belongs_to_one_run(tmp_path: Path) -> None:
    path = tmp_path / "o.mkv"
    with claimed(path):
        with pytest.raises(OutputError, match="another run writes it"), claimed(path, overwrite=True):
            pass
        path.write_bytes(b"something")
    with claimed(path, overwrite=True):
        assert path.read_bytes() == b"something"  # until the writer begins
        with pytest.raises(OutputError, match="another run writes it"), claimed(path, overwrite=True):
            pass
    assert path.exists()


def test_an_hls_folder_belongs_to_one_run(running: Callable[..., Running], tmp_path: Path) -> None:
    folder = tmp_path / "tv"
    first = running(CAMERA, f"{folder}/")
    first.more_frames()
    with pytest.raises(OutputError, match=r"index\.m3u8: another run writes it"):
        run(CAMERA, f"{folder}/", stub_matter())
    with pytest.raises(OutputError, match="another run"):
        run(CAMERA, f"{folder}/index.m3u8", stub_matter())
    run(CAMERA, f"{folder}/other.m3u8", stub_matter(), duration_seconds=0.2)
    first.end()
    assert not list(folder.glob(".*"))
    run(CAMERA, f"{folder}/", stub_matter(), duration_seconds=0.2)


def test_a_lock_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    """What a run that ends takes away is no lock any more, for whoever has opened it."""
    path = tmp_path / "index.m3u8"
    with locked_beside(path):
        (place,) = tmp_path.iterdir()
        with place.open("w") as opened:
            assert locks.is_at(opened, place)
            place.unlink()
            assert not locks.is_at(opened, place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sink", "words"),
    [
        (SinkOptions(crf=-5), "--crf -5: must be between 0 and 51 for h264"),
        (SinkOptions(crf=99), "--crf 99: must be between 0 and 51 for h264"),
        (SinkOptions(bit_rate=999_999_000_000), "the encoder refuses"),
    ],
)
def test_rates_that_no_encoder_takes(
    stub: Callable[..., Matter], tmp_path: Path, sink: SinkOptions, words: str
) -> None:
    with pytest.raises(OutputError, match=words):
        run(CAMERA, tmp_path / "o.mkv", stub(), publish=PublishOptions(sink))
    assert not list(tmp_path.iterdir())


def test_a_backend_that_is_not_there(
    stub: Callable[..., Matter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame would go out hidden, to the end."""
    matter = stub()
    monkeypatch.setattr(backends, "_table", backends.Table("typo"))
    with pytest.raises(DeviceError, match="BANET_BACKEND must be one of"):
        run(CAMERA, tmp_path / "o.mkv", matter)
    assert not list(tmp_path.iterdir())


def test_paths_are_places(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    options = replace(OPTIONS, realtime=True)
    process_live(clip(frames=5), tmp_path / "o.mkv", background="green", matter=stub(), options=options)
    assert (tmp_path / "o.mkv").stat().st_size


def test_a_wait_beyond_a_day() -> None:
    with pytest.raises(UsageError, match=r"--timeout 1e\+10: must be at most a day"):
        LiveOptions(capture=CaptureOptions(1e10))


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_nobody_reads_what_is_said() -> None:
    live_cli.say("text", None)
    live_cli.say("text", Full())

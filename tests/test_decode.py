from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from banet_stream.decode import Source, decode
from banet_stream.errors import InputError
from banet_stream.frame import Frame, Packet

Clip = Callable[..., Path]


def frames_of(source: Source) -> list[Frame]:
    return [item for item in decode(source) if isinstance(item, Frame)]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"codec": "libx265", "suffix": ".mkv"},
        {"codec": "libvpx-vp9", "suffix": ".webm"},
        {"rate": Fraction(24000, 1001)},
        {"rate": Fraction(30)},
        {"pts": (0, 40, 80, 200, 210, 400, 1000, 1033, 1066, 1100, 1200, 2000)},
        {"pixel_format": "yuv422p", "width": 97, "height": 65, "codec": "ffv1", "suffix": ".mkv"},
        {"pixel_format": "yuv420p10le"},
    ],
)
def test_frames_and_timestamps_are_the_containers(clip: Clip, spec: dict[str, object]) -> None:
    path = clip(**spec)
    with av.open(str(path)) as container:
        expected = [frame.time for frame in container.decode(video=0)]
    source = Source(path)
    assert [f.pts_seconds for f in frames_of(source)] == pytest.approx(expected, abs=1e-9)
    assert source.lost_frames == source.damaged == 0
    source.close()


def test_packets_of_sound_pass_between_frames(clip: Clip) -> None:
    source = Source(clip(audio="aac", frames=25))
    items = list(decode(source))
    packets = [i for i in items if isinstance(i, Packet)]
    assert len(packets) >= 45
    kinds = "".join("p" if isinstance(i, Packet) else "f" for i in items)
    assert "fp" in kinds
    assert "pf" in kinds
    source.close()
    silent = Source(clip(audio="aac", frames=25), audio=False)
    assert all(isinstance(i, Frame) for i in decode(silent))
    silent.close()


def test_start_and_duration(clip: Clip) -> None:
    source = Source(clip(frames=50, audio="aac"), start_seconds=0.8, duration_seconds=0.4)
    assert source.expected_frames == 10
    items = list(decode(source))
    frames = [i.pts_seconds for i in items if isinstance(i, Frame)]
    assert frames == pytest.approx([i / 25 for i in range(10)])
    sound = [float(i.pts * i.time_base) for i in items if isinstance(i, Packet)]
    assert 0 <= min(sound) < 0.03
    assert 0.36 < max(sound) < 0.4
    source.close()


def test_stop_ends_the_stream(clip: Clip) -> None:
    source = Source(clip(frames=50))
    seen = 0
    for _ in decode(source):
        seen += 1
        if seen == 5:
            source.stop.set()
    assert 5 <= seen < 50
    source.close()


def test_a_cut_off_file_is_read_as_far_as_it_goes(clip: Clip, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mkv"
    content = clip(frames=60, suffix=".mkv", noise=True).read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    source = Source(cut)
    frames = frames_of(source)
    assert 5 < len(frames) < 60
    assert source.lost_frames == pytest.approx(60 - len(frames), abs=2)
    source.close()


def test_damaged_packets_are_skipped_and_counted(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    content = bytearray(clip(frames=60, noise=True).read_bytes())
    start = content.index(b"mdat") + len(content) // 3
    content[start : start + 4000] = bytes(4000)
    path.write_bytes(content)
    source = Source(path)
    frames = frames_of(source)
    assert 20 <= len(frames) <= 60
    assert source.lost_frames >= source.damaged > 0
    source.close()


def test_frames_hidden_by_an_edit_list_are_not_lost(clip: Clip, tmp_path: Path) -> None:
    """Cutting without re-encoding keeps frames before the cut in the file, not to be shown."""
    path = tmp_path / "cut.mp4"
    with av.open(str(clip(frames=50))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.pts -= 10 * 512
                packet.dts -= 10 * 512
                packet.stream = stream
                new.mux(packet)
    source = Source(path)
    frames = frames_of(source)
    assert len(frames) < source.info.frames == 50
    assert source.lost_frames == 0
    source.close()


def test_frames_of_another_size_are_fitted_to_the_first(clip: Clip, tmp_path: Path) -> None:
    # Two elementary streams one after the other: the resolution changes in mid-stream.
    parts = []
    for width in (96, 128):
        part = tmp_path / f"{width}.h264"
        with av.open(str(clip(width=width))) as source, av.open(str(part), "w", format="h264") as sink:
            stream = sink.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 128, "yuv420p"
            for frame in source.decode(video=0):
                frame.pts = None
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
        parts.append(part.read_bytes())
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(parts))
    source = Source(joined)
    frames = frames_of(source)
    assert len(frames) == 24
    assert {(f.width, f.height) for f in frames} == {(96, 128)}
    assert all(b.pts > a.pts for a, b in pairwise(frames))
    source.close()


def make_text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("this is no video\n" * 50)
    return path


def make_empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def make_sound(folder: Path) -> Path:
    path = folder / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        from conftest import tone

        container.mux(stream.encode(tone(0, 48000)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.mp4", "no such file"),
        (lambda folder: folder, "is a directory"),
        (make_empty, "the file is empty"),
        (make_text, "not a video"),
        (make_sound, "no video stream in it \\(it holds: audio\\)"),
        (lambda folder: "http://127.0.0.1:9/none.mp4", "can't be opened"),
        (lambda folder: "nonsense://x", "can't be opened"),
    ],
)
def test_what_can_not_be_opened_says_why(
    make: Callable[[Path], Path | str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Source(make(tmp_path))


def test_an_index_cut_off(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    content = clip(frames=60).read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(InputError, match="cut off before its index"):
        Source(path)


def test_start_behind_the_end(clip: Clip) -> None:
    with pytest.raises(InputError, match="lies behind its end"):
        Source(clip(), start_seconds=100)


def test_odd_file_names(clip: Clip, tmp_path: Path) -> None:
    for name in ("a:b.mp4", "50%d.mp4", " space ü.mp4", "-dash.mp4"):
        path = tmp_path / name
        shutil.copy(clip(), path)
        source = Source(path)
        assert len(frames_of(source)) == 12
        source.close()

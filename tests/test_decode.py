from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import portrait
from PIL import Image, ImageOps

from banet_stream import unpack
from banet_stream.background import open_background
from banet_stream.decode import INTERLEAVING_SECONDS, Source, decode, decode_passed
from banet_stream.errors import BackgroundError, InputError, Interrupted
from banet_stream.frame import Frame, Packet, rgb_of
from banet_stream.opening import local_path
from banet_stream.photo import open_photo
from banet_stream.stream import process
from banet_stream.unpack import decode_packet

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


@pytest.mark.parametrize("late", [False, True], ids=["interleaved", "sound after pictures"])
def test_a_duration_ends_though_the_sound_ended_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Nothing tells then that a track has come to the end of the part."""
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w", options={"max_interleave_delta": "1"}) as container:
        video = container.add_stream("ffv1", rate=20)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        track = container.add_stream("flac", rate=48000, layout="mono")
        for index in range(400):
            container.mux(video.encode(noise(index)))
            if (at := index - 100 * late) in range(10):
                container.mux(track.encode(sound(at)))
            if at == 10:
                container.mux(track.encode(None))
    decoded = []
    monkeypatch.setattr(unpack, "decode_packet", lambda *given: decoded.append(1) or decode_packet(*given))
    source = Source(path, duration_seconds=1)
    items = list(decode(source))
    assert sum(isinstance(i, Frame) for i in items) == 20
    heard = sum(isinstance(i, Packet) for i in items)
    assert heard >= 5
    assert source.packets <= 20 * (1 + INTERLEAVING_SECONDS) + 1
    assert len(decoded) < 60  # every thread of the decoder holds one back
    source.close()
    again = Source(path, duration_seconds=1)
    assert sum(1 for _ in decode_passed(again)) == heard
    assert again.packets == source.packets
    again.close()


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


EVEN = tuple(range(0, 4000, 40))
UNEVEN = tuple(40 * n + 15 * (n % 3) + 600 * (n >= 70) for n in range(100))


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("first", "seconds"), [(0, 2.0), (0, 3.9), (1.6, 1.0), (2.0, 0.5)])
def test_a_file_trimmed_by_its_edit_list_is_whole(
    clip: Clip, tmp_path: Path, times: tuple[int, ...], first: float, seconds: float
) -> None:
    """Editors that don't re-encode leave frames in the file that FFmpeg does not even read."""
    path, cut = tmp_path / "trimmed.mp4", tmp_path / "cut.mp4"
    whole = clip(frames=100, pts=times, width=64, height=64, noise=True, index_first=True).read_bytes()
    path.write_bytes(trimmed(whole, first, seconds))
    source = Source(path)
    frames = frames_of(source)
    assert len(frames) < source.info.frames == 100
    assert source.lost_frames == source.damaged == 0
    source.close()
    if first:
        return
    # Cut off in what is shown; how many frames are lost is estimated by the average rate.
    cut.write_bytes(path.read_bytes()[: int(len(whole) * seconds / 8)])
    source = Source(cut)
    seen = frames_of(source)
    assert 5 < len(seen) < len(frames)
    assert len(seen) + source.lost_frames == pytest.approx(len(frames), rel=0.25)
    source.close()


def trimmed(content: bytes, first: float, seconds: float) -> bytes:
    """An MP4 whose edit list shows so many seconds of it from the first one on."""
    made = bytearray(content)
    entry = made.index(b"elst") + 12  # ISO/IEC 14496-12, 8.6.6: duration, media time
    ticks = int.from_bytes(made[made.index(b"mdhd") + 16 :][:4])  # of the media, in a second
    time = int.from_bytes(made[entry + 4 :][:4]) + round(first * ticks)
    made[entry : entry + 8] = round(seconds * 1000).to_bytes(4) + time.to_bytes(4)
    return bytes(made)


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


@pytest.mark.parametrize(
    ("suffix", "codec", "keys"),
    [
        (".ts", "libx264", 20),
        (".ts", "libx264", 1000),
        (".ts", "libx265", 25),
        (".ts", "mpeg4", 20),
        (".mpg", "mpeg2video", 12),
        (".h264", "libx264", 20),
        (".mp4", "libx264", 1000),
    ],
)
def test_a_start_loses_no_frame(tmp_path: Path, suffix: str, codec: str, keys: int) -> None:
    """In some formats seeking ends between key frames, and raw streams know no seeking at all."""
    path = tmp_path / f"in{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": str(keys), "x265-params": "log-level=0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    whole = Source(path)
    levels = [float(f.planes[0].float().mean()) for f in frames_of(whole)]
    whole.close()
    assert len(levels) == 60
    source = Source(path, start_seconds=1.2, duration_seconds=0.8)
    frames = frames_of(source)
    source.close()
    assert [f.pts_seconds for f in frames] == pytest.approx([i / 25 for i in range(20)], abs=1e-4)
    assert [float(f.planes[0].float().mean()) for f in frames] == pytest.approx(levels[30:50], abs=1)
    assert source.damaged == 0


def test_dv_has_its_own_rate(tmp_path: Path) -> None:
    """FFmpeg names its clock's, 60,000 a second, with which MP4 can't take the tape's timecode."""
    path, out = tmp_path / "tape.dv", tmp_path / "out.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((576, 720, 3), 40 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with closing(Source(path)) as source:
        assert source.info.rate == 25
        assert source.expected_frames == 5
    summary = process(path, out, background="#102030", deinterlace="off")
    with av.open(str(out)) as found:
        assert (summary.frames, found.streams.video[0].average_rate) == (5, 25)


def noise(index: int) -> av.VideoFrame:
    """Something that takes its bytes."""
    samples = np.random.default_rng(index).integers(0, 255, (96, 64), np.uint8)
    frame = av.VideoFrame.from_ndarray(samples, format="yuv420p")
    frame.pts, frame.time_base = index, Fraction(1, 20)
    return frame


@pytest.mark.parametrize("other", ["sound", "picture"])
def test_what_is_left_out_may_be_longer(tmp_path: Path, other: str) -> None:
    """Half a second of picture, and two seconds of something that is not read."""
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=20)
        if other == "sound":
            long = container.add_stream("flac", rate=48000, layout="mono")
        else:
            long = container.add_stream("ffv1", rate=20)
            long.width, long.height, long.pix_fmt = 64, 64, "yuv420p"
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for index in range(40):
            if index < 10:
                container.mux(video.encode(noise(index)))
            container.mux(long.encode(noise(index) if other == "picture" else sound(index)))
        container.mux(long.encode(None))
    content = path.read_bytes()
    assert b"DURATION" in content
    # Without the tags the end of a track that is not read is unknown.
    (tmp_path / "untagged.mkv").write_bytes(content.replace(b"DURATION", b"NOTHING!"))
    for name in ("in.mkv", "untagged.mkv"):
        source = Source(tmp_path / name, audio=False)
        assert len(frames_of(source)) == 10
        assert source.lost_frames == source.damaged == 0
        source.close()


def sound(index: int) -> av.AudioFrame:
    samples = np.zeros((1, 2400), np.int16)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, index * 2400, Fraction(1, 48000)
    return frame


def test_a_late_matroska_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(60, 80):
            container.mux(stream.encode(noise(index)))
    source = Source(path)
    assert len(frames_of(source)) == 20
    assert source.lost_frames == 0
    source.close()


def test_avi_counts_empty_packets(tmp_path: Path) -> None:
    """Its times are numbers of packets: where a picture stays, some are empty."""
    path, cut = tmp_path / "in.avi", tmp_path / "cut.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in [*range(5), *range(10, 40)]:
            container.mux(stream.encode(noise(index)))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 40
    source = Source(path)
    assert len(frames_of(source)) == 35
    assert source.lost_frames == 0
    source.close()
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    source = Source(cut)
    assert 5 < len(frames_of(source)) < 30
    assert source.lost_frames > 10
    source.close()


@pytest.fixture
def pipe(clip: Clip, tmp_path: Path) -> Iterator[Path]:
    """A named pipe into which a small Matroska file is written once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = clip(suffix=".mkv").read_bytes()
    writer = threading.Thread(target=lambda: path.write_bytes(content), daemon=True)
    writer.start()
    yield path
    writer.join(10)


def test_a_pipe_by_name_is_read_from_its_first_byte(pipe: Path) -> None:
    assert open_photo(pipe) is None
    source = Source(pipe, start_seconds=0.2)
    frames = frames_of(source)
    assert [f.pts_seconds for f in frames] == pytest.approx([i / 25 for i in range(7)], abs=1e-3)
    source.close()


def test_waiting_for_a_pipe_can_be_stopped(tmp_path: Path) -> None:
    path, stop = tmp_path / "silent", threading.Event()
    os.mkfifo(path)
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted, match="interrupted while waiting for"):
        Source(path, stop=stop)
    os.close(os.open(path, os.O_RDWR))  # lets go who still waits


def test_a_signal_reaches_who_waits_for_standard_input() -> None:
    code = (
        "import signal, threading, _thread\n"
        "from banet_stream.decode import Source\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's parents ignore it
        "print('waits', flush=True)\n"
        "try:\n    threading.Timer(0.5, _thread.interrupt_main).start()\n    Source('-')\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "waits\n"
            assert child.stdout.readline() == "interrupted\n"
            assert child.wait(60) == 0
        finally:
            child.kill()


def test_standard_input_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="-: standard input is closed"):
        Source("-")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("file:///a/b%20c%23.mp4", "/a/b c#.mp4"),
        ("FILE://localhost/a?b.mp4", "/a?b.mp4"),
        ("file://elsewhere/a.mp4", "file://elsewhere/a.mp4"),
        ("file:a.mp4", "file:a.mp4"),
        ("http://localhost/a%20b", "http://localhost/a%20b"),
        ("50%20.mp4", "50%20.mp4"),
    ],
)
def test_file_urls_are_paths(name: str, path: str) -> None:
    assert local_path(name) == path


def test_a_file_url_is_opened(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "ein ü#.mp4"
    shutil.copy(clip(), path)
    source = Source(path.as_uri())
    assert source.name == str(path)
    assert len(frames_of(source)) == 12
    source.close()


def joined(folder: Path, *parts: tuple[str, int, int], rgb: tuple[int, int, int]) -> Path:
    """H.264 of one colour, by pixel format, width and tagged matrix (H.273; 2: none), one after the other."""
    whole = folder / "joined.h264"
    with whole.open("wb") as file:
        for number, (layout, width, space) in enumerate(parts):
            part, wide = folder / f"{number}.h264", 2 if "j" in layout else 1
            with av.open(str(part), "w", format="h264") as container:
                stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
                stream.width, stream.height, stream.pix_fmt = width, 64, layout
                stream.codec_context.color_range, stream.codec_context.colorspace = wide, space
                pixels = np.full((64, width, 3), rgb, np.uint8)
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format=layout, dst_colorspace=1 if width > 1024 else 5, dst_color_range=wide
                )
                picture.colorspace = space
                for _ in range(3):
                    picture.pts = None
                    container.mux(stream.encode(picture))
                container.mux(stream.encode(None))
            file.write(part.read_bytes())
    return whole


@pytest.mark.parametrize(
    "parts",
    [
        (("yuvj420p", 64, 5), ("yuv420p", 64, 5)),
        (("yuv420p", 64, 5), ("yuvj420p", 64, 5)),
        (("yuv420p", 64, 2), ("yuv420p", 1280, 2)),
        (("yuv420p10le", 1280, 2), ("yuv420p10le", 64, 2)),
    ],
)
def test_colours_stay_where_their_coding_changes(
    tmp_path: Path, parts: tuple[tuple[str, int, int], ...]
) -> None:
    rgb = (200, 40, 90)
    source = Source(joined(tmp_path, *parts, rgb=rgb))
    frames = frames_of(source)
    source.close()
    assert len(frames) == 6
    assert len({f.colour for f in frames}) == 1
    for frame in frames:
        shown = rgb_of(frame).reshape(-1, 3).mean(0)
        assert np.abs(shown - rgb).max() <= 4


MIRRORED = [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to compare with")
@pytest.mark.parametrize("matrix", [*MIRRORED, (-1, 0, 0, -1), (0, 1, -1, 0)])
@pytest.mark.parametrize("deinterlace", ["off", "on"])
def test_mirrored_video_is_shown_as_players_show_it(
    clip: Clip, tmp_path: Path, matrix: tuple[int, ...], deinterlace: str
) -> None:
    path = tmp_path / "mirrored.mp4"
    write_matrix(clip(), path, matrix)
    words = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(words, capture_output=True, check=True).stdout
    source = Source(path, deinterlace=deinterlace)
    shown = [rgb_of(frame) for frame in frames_of(source)]
    source.close()
    wanted = np.frombuffer(raw, np.uint8).reshape(-1, *shown[0].shape)
    assert len(wanted) == len(shown) == 12
    assert np.abs(wanted.astype(int) - np.stack(shown)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_motion_jpeg_with_exif_is_shown_upright(orientation: int, tmp_path: Path) -> None:
    """PyAV has no name for its EXIF."""
    one, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    portrait(96, 128).save(one, "JPEG", exif=exif, quality=95, subsampling=0)
    (tmp_path / "camera.mjpeg").write_bytes(3 * one.getvalue())
    source = Source(tmp_path / "camera.mjpeg")
    frames = frames_of(source)
    source.close()
    with Image.open(one) as picture:
        wanted = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.int16)
    assert len(frames) == 3
    for shown in map(rgb_of, frames):
        assert shown.shape == wanted.shape
        assert np.abs(shown.astype(np.int16) - wanted).mean() < 4


def write_matrix(source: Path, target: Path, matrix: tuple[int, ...]) -> None:
    """A copy of an MP4 file with a, b, c, d of its first track's display matrix (ISO 14496-12, 8.3.2)."""
    content = bytearray(source.read_bytes())
    start = content.index(b"tkhd") + 44  # a, b, u, c, d, v, x, y, w, each of four bytes
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        content[start + place : start + place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    target.write_bytes(content)


def test_matrices_unknown_here_are_refused(tmp_path: Path) -> None:
    """Taken for another one, all colours would be wrong."""
    path = tmp_path / "ycgco.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = 8
        frame = av.VideoFrame.from_ndarray(np.full((144, 64), 128, np.uint8).reshape(3, 48, 64), "yuv444p")
        frame.colorspace = 8
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for open_it, error in ((Source, InputError), (open_background, BackgroundError)):
        with pytest.raises(error, match=r"ycgco\.mp4: its colours are YCgCo; convert it to BT\.709"):
            open_it(str(path))

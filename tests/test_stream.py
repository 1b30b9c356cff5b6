"""End to end on real media: what goes in comes out, but for the background."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import read
from skimage.data import astronaut

import banet_stream
from banet_stream import EncodeOptions, Matter, iter_mattes, process
from banet_stream.background import Plain
from banet_stream.compositing import compose
from banet_stream.decode import Source, decode
from banet_stream.errors import IncompleteInput
from banet_stream.frame import Frame
from banet_stream.matting import matte, network_size
from banet_stream.pipeline import StageTime
from banet_stream.stream import Summary, stats_table

Clip = Callable[..., Path]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.mp4"


@pytest.mark.parametrize(
    ("spec", "suffix", "codec"),
    [
        ({"audio": "aac"}, ".mp4", "h264"),
        ({"audio": "aac", "rate": Fraction(24000, 1001)}, ".mp4", "h264"),
        ({"audio": "aac", "rate": Fraction(30), "codec": "libx265"}, ".mkv", "h264"),
        (
            {"audio": "libopus", "codec": "libvpx-vp9", "suffix": ".webm", "rate": Fraction(24)},
            ".webm",
            "vp9",
        ),
        ({"rate": Fraction(60000, 1001)}, ".mov", "h264"),
        ({"pts": (0, 40, 80, 200, 210, 400, 1000, 1033, 1066, 1100, 1200, 2000)}, ".mp4", "h264"),
        ({"pts": (500, 540, 580, 700, 710, 900, 1500, 1533, 1566, 1600, 1700, 2500)}, ".mkv", "h264"),
        ({"width": 97, "height": 131, "codec": "ffv1", "suffix": ".mkv"}, ".mp4", "h264"),
        ({"width": 97, "height": 131, "codec": "libvpx-vp9", "suffix": ".webm"}, ".webm", "vp9"),
        ({"width": 1, "height": 1, "codec": "ffv1", "suffix": ".mkv"}, ".mp4", "h264"),
        ({"width": 128, "height": 96, "rotation": 90}, ".mp4", "h264"),
        ({"pixel_format": "yuv420p10le", "codec": "libx265"}, ".mp4", "hevc"),
        ({"pixel_format": "yuv444p"}, ".mkv", "h264"),
        ({"aspect": Fraction(4, 3)}, ".mp4", "h264"),
    ],
)
def test_time_sound_and_shape_are_kept(
    clip: Clip, matter: Matter, tmp_path: Path, spec: dict[str, object], suffix: str, codec: str
) -> None:
    source, output = clip(**spec), tmp_path / f"out{suffix}"
    summary = process(source, output, background="green", matter=matter)
    before, after = read(source), read(output)
    assert summary.frames == len(after.frames) == len(before.frames)
    # Matroska counts in milliseconds and from zero: where sound begins before, everything moves alike.
    exact = suffix in (".mp4", ".mov")
    tolerance, shift = (1e-6, 0.0) if exact else (1.1e-3, after.pts_seconds[0] - before.pts_seconds[0])
    assert 0 <= shift < 0.03
    assert after.pts_seconds == pytest.approx([t + shift for t in before.pts_seconds], abs=tolerance)
    assert after.codec == codec
    assert after.audio_packets == before.audio_packets  # copied, not re-encoded
    assert after.audio_seconds == pytest.approx([t + shift for t in before.audio_seconds], abs=1.1e-3)
    assert after.rotation == before.rotation
    first, last = before.frames[0], after.frames[0]
    even = 2 if suffix != ".webm" else 1
    assert last.width == -(-first.width // even) * even
    assert last.height == -(-first.height // even) * even
    assert last.format.name == first.format.name
    with av.open(str(output)) as container:
        assert container.streams.video[0].sample_aspect_ratio in (spec.get("aspect", 1), None)
    assert [p.name for p in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize(("space", "value_range"), [(1, 1), (6, 1), (9, 1), (1, 2), (6, 2)])
def test_colour_tags_and_colours(clip: Clip, matter: Matter, out: Path, space: int, value_range: int) -> None:
    source = clip(space=space, range=value_range, pixel_format="yuv444p")
    process(source, out, background="#00b140", matter=matter, encoding=EncodeOptions(crf=1))
    frame = read(out).frames[0]
    assert (int(frame.colorspace), int(frame.color_range)) == (space, value_range)
    corner = frame.to_ndarray(format="rgb24")[:4, :4].reshape(-1, 3).mean(0)
    assert np.abs(corner - [0x00, 0xB1, 0x40]).max() <= 3


def test_the_core_of_the_subject_is_untouched(clip: Clip, matter: Matter) -> None:
    """Before encoding, what is surely person equals the source, and what is surely not the background."""
    source = Source(clip())
    originals = []

    def remember() -> object:
        for item in decode(source):
            originals.append([p.clone() for p in item.planes])
            yield item

    stream = matter.stream()
    results = list(compose(matte(remember(), stream), Plain((0, 177, 64)), stream.timings))
    source.close()
    for original, result in zip(originals, results, strict=True):
        same = result.planes[0] == original[0]
        backdrop = result.planes[0] == result.planes[0][0, 0]
        assert same[22:48, 38:54].float().mean() > 0.97  # her face
        assert same[70:, 30:66].float().mean() > 0.85  # her suit, in which the network is less sure
        assert backdrop[:25, :20].float().mean() > 0.97  # the wall


def test_a_person_is_cut_out(matter: Matter) -> None:
    alpha = matter.alpha(astronaut())
    assert alpha.shape == (512, 512)
    assert alpha.dtype == np.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert alpha[60:160, 190:260].mean() > 0.97  # face
    assert alpha[300:450, 100:300].mean() > 0.85  # suit
    assert alpha[20:200, 320:].mean() < 0.1  # shuttle model and wall
    assert alpha[20:200, :60].mean() < 0.1  # flag


def test_ghosts_fade(stub: Callable[..., Matter]) -> None:
    found = torch.zeros(1, 1, 64, 64)
    found[..., 22:42] = 1.0  # somebody
    found[..., 10:16, 2:12] = found[..., 10:16, 52:62] = 0.6  # two lamps
    matter = stub(lambda _: found)
    stream, picture = matter.stream(), np.full((64, 64, 3), 128, np.uint8)
    for alpha in (matter.alpha(picture), stream.alpha(picture), stream.alpha(picture)):
        assert alpha[:, 24:40].min() == 1
        assert alpha[:, :16].max() == alpha[:, 48:].max() == 0


def test_single_pictures_have_no_memory(matter: Matter) -> None:
    picture = astronaut()[:256, :256]
    before = matter.alpha(picture)
    matter.alpha(np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_array_equal(matter.alpha(picture), before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (33, 17), (200, 300)])
def test_pictures_of_any_size(matter: Matter, shape: tuple[int, int]) -> None:
    assert matter.alpha(np.zeros((*shape, 3), np.uint8)).shape == shape


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))],
)
def test_other_arrays_are_refused(matter: Matter, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8 \\[H, W, 3\\]"):
        matter.alpha(picture)


def test_stream_memory_steadies_and_resets(matter: Matter) -> None:
    generator = np.random.default_rng(0)
    still = astronaut()[:384:2, :384:2].astype(np.int16)
    noisy = [np.clip(still + generator.normal(0, 5, still.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    stream = matter.stream()
    steady = np.stack([stream.alpha(p) for p in noisy])
    single = np.stack([matter.stream().alpha(p) for p in noisy])
    flicker = [np.abs(np.diff(a, axis=0)).mean() for a in (steady[2:], single[2:])]
    assert flicker[0] < 0.7 * flicker[1]
    stream.reset()
    np.testing.assert_array_equal(stream.alpha(noisy[0]), single[0])


def test_a_cut_resets_the_memory(matter: Matter) -> None:
    stream = matter.stream()
    stream.alpha(astronaut()[:256, :256])
    other = 255 - astronaut()[256:, 256:]
    np.testing.assert_array_equal(stream.alpha(other), matter.stream().alpha(other))


def test_pictures_are_seen_mirrored_too(matter: Matter) -> None:
    """A mirrored picture has the mirrored matte; videos only where that is asked for."""
    picture = np.ascontiguousarray(astronaut()[:256, 40:296])
    mirrored = np.ascontiguousarray(picture[:, ::-1])

    def asymmetry(see: Callable[[np.ndarray], np.ndarray]) -> float:
        return float(np.abs(see(picture) - see(mirrored)[:, ::-1]).mean())

    # Full size has an edge-aware filter of its own, which rounds; but for that there is no difference.
    assert asymmetry(matter.alpha) < 1e-4
    assert asymmetry(lambda p: matter.stream(mirrored=True).alpha(p)) < 1e-4
    assert asymmetry(lambda p: matter.stream().alpha(p)) > 1e-3
    assert matter.stream(mirrored=True).description == f"{matter.stream().description}, mirrored too"


@pytest.mark.parametrize(
    ("height", "width", "size", "seen"),
    [
        (720, 1280, 512, (288, 512)),
        (1280, 720, 512, (512, 288)),
        (2160, 3840, 384, (224, 384)),
        (960, 1280, 512, (320, 448)),  # as many pixels as the first, to multiples of 32
        (1000, 1000, 512, (384, 384)),
        (1364, 720, 512, (544, 288)),
        (320, 240, 512, (320, 256)),  # smaller than that: as it is
        (90, 160, 512, (128, 256)),  # very small: enlarged
        (90, 160, 64, (32, 64)),  # unless that is asked for
        (1, 1, 512, (192, 192)),
        (1, 4000, 512, (32, 1024)),  # a strip: no longer than twice the size
    ],
)
def test_what_the_network_sees(height: int, width: int, size: int, seen: tuple[int, int]) -> None:
    assert network_size(height, width, size) == seen


def test_iter_mattes(clip: Clip, matter: Matter) -> None:
    mattes = list(iter_mattes(clip(width=128, height=96, rotation=90), matter=matter))
    assert len(mattes) == 12
    assert mattes[3].pts_seconds == pytest.approx(3 / 25)
    assert mattes[0].rgb.shape == (128, 96, 3)
    assert mattes[0].alpha.shape == (128, 96)
    assert mattes[0].alpha[70:, 30:66].mean() > 0.9


def test_iter_mattes_says_at_the_end_what_was_lost(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    cut, seen = tmp_path / "cut.mkv", []
    content = clip(frames=60, noise=True, suffix=".mkv").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(IncompleteInput, match=r"\d+ of \d+ frames lost"):
        seen.extend(m.pts_seconds for m in iter_mattes(cut, matter=matter))
    assert 10 < len(seen) < 60


def test_the_table_counts_the_frames_of_this_run_only() -> None:
    stages = [StageTime("matte", 1.0, 0.0)]
    summary = Summary(Path("o.mp4"), 110, 2.0, stages, {}, "libx264", "none", resumed_frames=100)
    assert re.search(r"matte +100\.00", stats_table(summary))


def test_rotated_video_is_matted_upright(clip: Clip, matter: Matter) -> None:
    # Large enough that the network is sure: the two are not compressed alike.
    upright = [m.alpha for m in iter_mattes(clip(width=192, height=256), matter=matter)]
    turned = [m.alpha for m in iter_mattes(clip(width=256, height=192, rotation=90), matter=matter)]
    assert np.abs(np.stack(upright) - np.stack(turned)).mean() < 0.03


@pytest.mark.parametrize("name", ["video", "image", "blur", "colour"])
def test_every_background(clip: Clip, matter: Matter, out: Path, tmp_path: Path, name: str) -> None:
    from PIL import Image

    Image.new("RGB", (50, 20), (200, 30, 30)).save(tmp_path / "red.png")
    background = {
        "video": str(clip(bars=True, frames=3)),
        "image": str(tmp_path / "red.png"),
        "blur": "blur:70",
        "colour": "red",
    }[name]
    process(clip(), out, background=background, matter=matter)
    before, after = (read(p).frames[5].to_ndarray(format="rgb24").astype(int) for p in (clip(), out))
    assert np.abs(before - after)[22:48, 38:54].mean() < 3  # her face
    assert np.abs(before - after)[:20].mean() > 3  # not the wall


def test_progress_is_told_after_every_frame(clip: Clip, matter: Matter, out: Path) -> None:
    told: list[banet_stream.Progress] = []
    process(clip(), out, matter=matter, progress=told.append)
    assert [p.frames for p in told] == list(range(1, 13))
    assert {p.expected_frames for p in told} == {12}
    assert told[-1].fps > 0


def test_no_audio_and_part(clip: Clip, matter: Matter, out: Path) -> None:
    source = clip(audio="aac", frames=50)
    process(source, out, matter=matter, audio=False, start_seconds=0.4, duration_seconds=0.8)
    after = read(out)
    assert not after.audio_packets
    assert after.pts_seconds == pytest.approx([i / 25 for i in range(20)], abs=1e-6)


def test_sound_the_container_can_not_hold_is_re_encoded_and_said(
    clip: Clip, matter: Matter, tmp_path: Path
) -> None:
    source, output = clip(audio="aac", frames=50), tmp_path / "out.webm"
    summary = process(source, output, matter=matter)
    assert any("re-encoded as libopus" in notice for notice in summary.notices)
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
        sound = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert 1.9 < len(sound) / 48000 < 2.15
    spectrum = np.abs(np.fft.rfft(sound[4800:52800]))
    assert abs(int(spectrum.argmax()) - 440) <= 2


def test_subtitles_chapters_and_tags_are_kept(matter: Matter, tmp_path: Path, clip: Clip) -> None:
    source, output = tmp_path / "tagged.mkv", tmp_path / "out.mkv"
    with av.open(str(clip(audio="aac"))) as old, av.open(str(source), "w") as new:
        new.metadata["title"] = "A title"
        streams = {s: new.add_stream_from_template(s) for s in old.streams}
        new.set_chapters(
            [{"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        )
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    process(source, output, matter=matter)
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "A title"
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One"]


@pytest.mark.parametrize(
    ("clock", "part", "expected"),
    [
        (0, {}, [("One", 0, 500), ("Two", 500, 1200), ("Three", 1200, 2000)]),
        (0, {"start_seconds": 0.7}, [("Two", 0, 500), ("Three", 500, 1300)]),
        (0, {"duration_seconds": 1.0}, [("One", 0, 500), ("Two", 500, 1000)]),
        (0, {"start_seconds": 0.25, "duration_seconds": 0.5}, [("One", 0, 250), ("Two", 250, 500)]),
        (100, {}, [("One", 0, 500), ("Two", 500, 1200), ("Three", 1200, 2000)]),
        (100, {"start_seconds": 0.7}, [("Two", 0, 500), ("Three", 500, 1300)]),
    ],
)
def test_chapters_are_those_of_the_part(
    matter: Matter,
    tmp_path: Path,
    clip: Clip,
    clock: int,
    part: dict[str, float],
    expected: list[tuple[str, int, int]],
) -> None:
    source, output = tmp_path / "chapters.mkv", tmp_path / "out.mkv"
    limits = [("One", 0, 500), ("Two", 500, 1200), ("Three", 1200, 2000)]
    with av.open(str(clip(frames=60))) as old, av.open(str(source), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        new.set_chapters(
            [
                {
                    "id": i,
                    "time_base": Fraction(1, 1000),
                    "start": start + 1000 * clock,
                    "end": end + 1000 * clock,
                    "metadata": {"title": title},
                }
                for i, (title, start, end) in enumerate(limits, 1)
            ]
        )
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = stream
                for name in ("pts", "dts"):
                    setattr(packet, name, getattr(packet, name) + round(clock / packet.time_base))
                new.mux(packet)
    process(source, output, matter=matter, **part)
    with av.open(str(output)) as container:
        found = [(c["metadata"]["title"], c["start"], c["end"], c["time_base"]) for c in container.chapters()]
    in_ms = [(title, *(round(1000 * t * base) for t in (start, end))) for title, start, end, base in found]
    assert in_ms == expected


def test_chapters_of_mp4_are_no_stream_left_out(matter: Matter, tmp_path: Path, clip: Clip) -> None:
    """MP4 has their titles in a track."""
    chapter = {"id": 1, "time_base": Fraction(1, 1000), "start": 0, "end": 400, "metadata": {"title": "One"}}
    with av.open(str(clip())) as old, av.open(str(tmp_path / "in.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        new.set_chapters([chapter])
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    summary = process(tmp_path / "in.mp4", tmp_path / "out.mp4", matter=matter)
    assert not [notice for notice in summary.notices if "stream" in notice]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One"]


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_timecode_of_a_stream_of_its_own_is_kept(
    matter: Matter, tmp_path: Path, clip: Clip, suffix: str
) -> None:
    timecode = {"timecode": "01:02:03:04"}
    with av.open(str(clip())) as old, av.open(str(tmp_path / "in.mov"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.metadata.update(timecode)
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    output = tmp_path / f"out{suffix}"
    summary = process(tmp_path / "in.mov", output, matter=matter)
    assert not [notice for notice in summary.notices if "left out" in notice]
    with av.open(str(tmp_path / "in.mov")) as old, av.open(str(output)) as new:
        assert len(old.streams.data) == 1
        held = {key.lower(): value for key, value in new.streams.video[0].metadata.items()}
        assert held["timecode"] == timecode["timecode"]


def test_streams_left_out_are_told_kind_by_kind(matter: Matter, tmp_path: Path, clip: Clip) -> None:
    with av.open(str(clip())) as old, av.open(str(tmp_path / "in.mkv"), "w") as new:
        streams = [new.add_stream_from_template(old.streams.video[0]) for _ in range(2)]
        for name in ("a.txt", "b.txt"):
            new.add_attachment(name, "text/plain", b"words")
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[0]
                new.mux(packet)
    summary = process(tmp_path / "in.mkv", tmp_path / "out.mkv", matter=matter)
    told = [notice for notice in summary.notices if "of the source" in notice]
    assert told == [
        "video stream 1 of the source is left out",
        "attachment streams 2, 3 of the source are left out",
    ]


def test_memory_does_not_grow_with_length(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    """Frames alive at once are bounded by the channels, however long the clip."""
    import gc

    most = 0

    def watch(now: banet_stream.Progress) -> None:
        nonlocal most
        if now.frames % 40 == 0:
            most = max(most, sum(type(o) is Frame for o in gc.get_objects()))

    process(clip(frames=200), tmp_path / "out.mp4", background="green", matter=matter, progress=watch)
    assert 0 < most < 50

"""What the containers and encoders do; whole runs are in test_stream.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from av.stream import Disposition
from conftest import read

from banet_stream import Matter, process
from banet_stream.codecs import CODECS, CONTAINERS, EncodeOptions, choose_format
from banet_stream.decode import Source, decode
from banet_stream.encode import Sink, encode, lasting
from banet_stream.errors import OutputError
from banet_stream.frame import PIXEL_FORMATS, Frame, planes_of
from banet_stream.relay_sink import copy_of

Clip = Callable[..., Path]


def copy(source: Path, output: Path, **options: object) -> Sink:
    """Decodes and encodes without matting."""
    video = Source(source)
    sink = Sink(output, video, EncodeOptions(**options))
    for _ in encode(decode(video), sink):
        pass
    sink.finish()
    video.close()
    return sink


@pytest.mark.parametrize(
    ("suffix", "codec"), [(suffix, codec) for suffix, codecs in CONTAINERS.items() for codec in codecs]
)
def test_every_container_with_every_codec(clip: Clip, tmp_path: Path, suffix: str, codec: str) -> None:
    output = tmp_path / f"out{suffix}"
    sink = copy(clip(audio="aac"), output, codec=codec)
    after = read(output)
    assert len(after.frames) == 12
    assert sink.encoder == CODECS[codec].encoder
    wanted = {"av1": "libdav1d"}.get(codec, codec)
    assert after.codec in (wanted, codec)
    assert after.audio_packets


@pytest.mark.parametrize(
    ("suffix", "codec"), [(suffix, codec) for suffix, codecs in CONTAINERS.items() for codec in codecs]
)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_shape_is_kept_or_its_loss_is_said(
    clip: Clip, tmp_path: Path, suffix: str, codec: str, rotation: int
) -> None:
    source = clip(rotation=rotation, aspect=Fraction(4, 3), width=128, height=96, frames=3)
    output = tmp_path / f"out{suffix}"
    sink = copy(source, output, codec=codec)
    with closing(Source(output)) as result:
        frame = next(item for item in decode(result) if isinstance(item, Frame))
    assert frame.rotation == rotation
    said = [n for n in sink.notices if n.endswith("without the sample aspect ratio, 4/3")]
    assert frame.sample_aspect_ratio == (1 if said else Fraction(4, 3))
    assert bool(said) == (suffix in (".mkv", ".webm") and codec not in ("h264", "hevc"))


@pytest.mark.parametrize(
    ("suffix", "lost"),
    [(".mp4", "custom_key, make"), (".mov", "custom_key, language of audio 1"), (".mkv", ""), (".webm", "")],
)
@pytest.mark.parametrize("resume", [False, True])
def test_tags_and_roles_of_tracks(clip: Clip, tmp_path: Path, suffix: str, lost: str, resume: bool) -> None:
    """The second track is the one to play; what becomes of tags is found by reading them back."""
    source, output = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    tags = {
        "title": "A title",
        "make": "Maker",
        "custom_key": "value",
        "creation_time": "2024-01-02T03:04:05Z",
    }
    with (
        av.open(str(clip(audio="aac"))) as old,
        av.open(str(source), "w", options={"movflags": "use_metadata_tags"}) as new,
    ):
        new.metadata.update(tags)
        picture, sound = old.streams.video[0], old.streams.audio[0]
        copies = [new.add_stream_from_template(s) for s in (picture, sound, sound)]
        copies[1].disposition, copies[2].disposition = (
            Disposition(0),
            Disposition.default | Disposition.comment,
        )
        copies[1].metadata["language"], copies[2].metadata["language"] = "deu", "fra"
        for packet in [p for p in old.demux() if p.dts is not None]:
            targets = copies[:1] if packet.stream is picture else copies[1:]
            for target in targets:
                new.mux(copy_of(packet, target))
    matter = Matter(device="cpu", size=64)
    summary = process(source, output, background="green", matter=matter, resume=resume)
    assert [n for n in summary.notices if "no place for" in n] == (
        [f"{suffix} has no place for these tags, left out: {lost}"] if lost else []
    )
    with av.open(str(output)) as container:
        held = {key.lower(): value for key, value in container.metadata.items()}
        assert tags.keys() - held.keys() == {tag for tag in tags if tag in lost}
        assert held["title"] == "A title"
        tracks = container.streams.audio
        assert [bool(t.disposition & Disposition.default) for t in tracks] == [False, True]
        if suffix in (".mp4", ".mkv"):
            assert [bool(t.disposition & Disposition.comment) for t in tracks] == [False, True]
        # QuickTime's list of languages has no deu.
        assert [t.metadata.get("language") for t in tracks] == [None if suffix == ".mov" else "deu", "fra"]


def test_a_track_in_which_nothing_comes(clip: Clip, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(clip(audio="aac"))) as old, av.open(str(source), "w") as new:
        picture, sound = old.streams.video[0], old.streams.audio[0]
        copies = [new.add_stream_from_template(s) for s in (picture, sound, sound)]
        copies[1].metadata["language"], copies[2].metadata["language"] = "deu", "fra"
        for packet in [p for p in old.demux() if p.dts is not None]:
            new.mux(copy_of(packet, copies[0] if packet.stream is picture else copies[2]))
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"out{suffix}"
        assert not [n for n in copy(source, output).notices if "no place for" in n]
        with av.open(str(output)) as container:
            assert container.streams.audio[-1].metadata["language"] == "fra"


@pytest.mark.parametrize(
    ("codec", "wanted", "expected"),
    [
        ("h264", "yuv420p", "yuv420p"),
        ("h264", "yuv422p10le", "yuv422p10le"),
        ("h264", "yuv444p12le", "yuv444p10le"),
        ("av1", "yuv444p", "yuv420p"),
        ("av1", "yuv422p12le", "yuv420p10le"),
        ("prores", "yuv420p", "yuv422p10le"),
        ("prores", "yuv444p", "yuv444p10le"),
        ("vp9", "yuv422p", "yuv422p"),
    ],
)
def test_the_nearest_format_an_encoder_takes(codec: str, wanted: str, expected: str) -> None:
    assert choose_format(CODECS[codec], PIXEL_FORMATS[wanted]).name == expected


def test_what_can_not_be_kept_is_said(clip: Clip, tmp_path: Path) -> None:
    source = clip(width=97, height=131, pixel_format="yuv444p", codec="ffv1", suffix=".mkv")
    sink = copy(source, tmp_path / "out.mp4", codec="av1")
    assert any("written as yuv420p" in n for n in sink.notices)
    assert any("97x131 is repeated" in n for n in sink.notices)


def test_lossless_is_lossless(clip: Clip, tmp_path: Path) -> None:
    source = clip(pixel_format="yuv422p10le", codec="ffv1", suffix=".mkv", width=33, height=17)
    copy(source, tmp_path / "out.mkv", codec="ffv1")
    for before, after in zip(read(source).frames, read(tmp_path / "out.mkv").frames, strict=True):
        layout = PIXEL_FORMATS["yuv422p10le"]
        pairs = zip(planes_of(before, layout), planes_of(after, layout), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_quality_and_rate_are_obeyed(clip: Clip, tmp_path: Path) -> None:
    source = clip(frames=60, noise=True)
    sizes = []
    for number, crf in enumerate((10, 25, 40)):
        copy(source, tmp_path / f"{number}.mp4", crf=crf)
        sizes.append((tmp_path / f"{number}.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2]
    copy(source, tmp_path / "rate.mp4", bit_rate=200_000)
    with av.open(str(tmp_path / "rate.mp4")) as container:
        assert 100_000 < container.streams.video[0].codec_context.bit_rate < 400_000


def test_hevc_in_mp4_plays_on_apples(clip: Clip, tmp_path: Path) -> None:
    copy(clip(), tmp_path / "out.mp4", codec="hevc")
    assert b"hvc1" in (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_hevc_has_sound_timestamps(clip: Clip, tmp_path: Path, frames: int) -> None:
    """x265 leaves decoding times of so few frames uninitialised; not always the same."""
    for number in range(5):
        copy(clip(frames=frames, audio="aac"), tmp_path / f"{number}.mp4", codec="hevc")
        after = read(tmp_path / f"{number}.mp4")
        assert after.pts_seconds == pytest.approx([i / 25 for i in range(frames)], abs=1e-6)


def test_the_index_is_in_front(clip: Clip, tmp_path: Path) -> None:
    copy(clip(), tmp_path / "out.mp4")
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_tags_that_last() -> None:
    tags = {"title": "A", "language": "deu", "DURATION": "00:01", "_STATISTICS_TAGS": "x", "BPS-eng": "9"}
    assert lasting(tags) == {"title": "A", "language": "deu"}


def test_the_languages_of_sound_are_kept(clip: Clip, tmp_path: Path) -> None:
    source = tmp_path / "two.mkv"
    with av.open(str(clip(audio="aac"))) as old, av.open(str(source), "w") as new:
        streams = {s: new.add_stream_from_template(s) for s in old.streams}
        second = new.add_stream_from_template(old.streams.audio[0])
        streams[old.streams.audio[0]].metadata["language"] = "deu"
        second.metadata["language"] = "fra"
        for packet in old.demux():
            if packet.dts is None:
                continue
            data, pts = bytes(packet), packet.pts
            twin = av.Packet(data)
            twin.pts, twin.dts, twin.time_base = pts, packet.dts, packet.time_base
            sound = packet.stream.type == "audio"
            packet.stream = streams[packet.stream]
            new.mux(packet)
            if sound:
                twin.stream = second
                new.mux(twin)
    copy(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [s.metadata.get("language") for s in container.streams.audio] == ["deu", "fra"]


def test_sound_whose_time_runs_backwards_is_skipped(clip: Clip, tmp_path: Path) -> None:
    video = Source(clip(audio="aac"))
    items = list(decode(video))
    sound = [i for i, item in enumerate(items) if isinstance(item, av.Packet)]
    items[sound[5]].dts = items[sound[5]].pts = items[sound[3]].pts
    sink = Sink(tmp_path / "out.mp4", video, EncodeOptions())
    for _ in encode(items, sink):
        pass
    sink.finish()
    assert video.damaged == 1
    assert len(read(tmp_path / "out.mp4").audio_packets) == len(sound) - 1
    video.close()


def test_output_that_came_to_be_meanwhile_is_not_replaced(clip: Clip, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    video = Source(clip())
    sink = Sink(output, video, EncodeOptions())
    for _ in encode(decode(video), sink):
        pass
    output.write_text("somebody else's")
    with pytest.raises(OutputError, match=r"the result is in .*out\.part\.mp4"):
        sink.finish()
    assert output.read_text() == "somebody else's"
    assert len(read(tmp_path / "out.part.mp4").frames) == 12
    video.close()


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(60000, 1001), Fraction(25, 2)])
def test_frame_rates_are_written(clip: Clip, tmp_path: Path, rate: Fraction) -> None:
    copy(clip(rate=rate), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].average_rate == rate

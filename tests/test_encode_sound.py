"""Sound and subtitles on their way into a file: copied where they may be, else encoded anew, or named."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import read
from test_encode import copy

from banet_stream import Matter, process
from banet_stream.layouts import fitting_form, usual_layout
from banet_stream.stream import Summary

Clip = Callable[..., Path]


def write_sound(
    path: Path, codec: str, *, layout: str = "mono", rate: int = 48000, seconds: float = 0.5
) -> Path:
    """A short video with such sound."""
    with av.open(str(path), "w", options={"strict": "-2"}) as container:
        video = container.add_stream("mpeg4", rate=20)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout=layout)
        for _ in range(round(seconds * 20)):
            picture = av.VideoFrame.from_ndarray(np.zeros((72, 64), np.uint8), format="yuv420p")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        channels = av.AudioLayout(layout).nb_channels
        samples = np.zeros((1, round(seconds * rate) * channels), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(
    ("encoder", "layout", "rate", "form"),
    [
        ("aac", "stereo", 44100, ("stereo", 44100)),
        ("aac", "2 channels", 48000, ("stereo", 48000)),
        ("ac3", "mono", 8000, ("mono", 32000)),
        ("ac3", "7.1", 96000, ("5.1", 48000)),
        ("libopus", "5.1(side)", 48000, ("5.1", 48000)),
    ],
)
def test_the_nearest_form_an_encoder_takes(
    encoder: str, layout: str, rate: int, form: tuple[str, int]
) -> None:
    assert fitting_form(encoder, av.AudioLayout(layout), rate) == form


def test_layouts_without_a_name() -> None:
    assert usual_layout(av.AudioLayout("6 channels")) == "5.1"
    assert usual_layout(av.AudioLayout("quad")) == "quad"
    assert usual_layout(av.AudioLayout("5.1(side)")) == "5.1(side)"
    assert usual_layout(av.AudioLayout("5.1(side)"), plain=True) == "5.1"


@pytest.mark.parametrize(
    ("codec", "layout", "rate", "suffixes", "becomes"),
    [
        ("pcm_mulaw", "mono", 8000, (".avi", ".mp4"), "aac"),
        ("pcm_mulaw", "mono", 8000, (".avi", ".mkv"), "ac3"),
        ("adpcm_ima_wav", "stereo", 44100, (".avi", ".mov"), "aac"),
        ("ac3", "5.1(side)", 48000, (".mkv", ".webm"), "opus"),
        ("flac", "stereo", 48000, (".mkv", ".mov"), "aac"),
        ("pcm_s16le", "stereo", 48000, (".avi", ".mp4"), "aac"),
        ("pcm_s16le", "stereo", 48000, (".mkv", ".mp4"), "aac"),
    ],
)
def test_what_can_not_be_copied_is_encoded(
    tmp_path: Path, codec: str, layout: str, rate: int, suffixes: tuple[str, str], becomes: str
) -> None:
    source = write_sound(tmp_path / f"in{suffixes[0]}", codec, layout=layout, rate=rate)
    sink = copy(source, tmp_path / f"out{suffixes[1]}")
    assert any(f"({codec}): re-encoded as " in notice for notice in sink.notices)
    with av.open(str(sink.path)) as container:
        (sound,) = container.streams.audio
        assert sound.codec_context.codec.canonical_name == becomes
        assert sound.codec_context.layout.nb_channels == av.AudioLayout(layout).nb_channels
        heard = sum(frame.samples / frame.sample_rate for frame in container.decode(sound))
    assert heard == pytest.approx(0.5, abs=0.1)


def tone(codec: str, layout: str, rate: int) -> list[av.Packet]:
    """Half a second of 440 Hz."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.layout, encoder.sample_rate, encoder.format = layout, rate, "fltp"
    wave = np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate).astype(np.float32)
    samples = np.repeat(wave[None], av.AudioLayout(layout).nb_channels, axis=0)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return [*encoder.encode(frame), *encoder.encode(None)]


@pytest.mark.parametrize("forms", [[("stereo", 48000), ("5.1", 48000)], [("5.1", 48000), ("mono", 44100)]])
def test_sound_that_changes_on_the_way_is_encoded(
    clip: Clip, tmp_path: Path, forms: list[tuple[str, int]]
) -> None:
    """As on television, between programmes and advertisements."""
    source = tmp_path / "in.mkv"
    with av.open(str(clip(frames=25))) as from_clip, av.open(str(source), "w") as container:
        pictures = container.add_stream_from_template(from_clip.streams.video[0])
        sound = container.add_stream("ac3", rate=forms[0][1], layout=forms[0][0])
        for packet in from_clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        begins = Fraction(0)
        for layout, rate in forms:
            for packet in tone("ac3", layout, rate):
                packet.pts = packet.dts = round(begins * 1000)
                packet.time_base, packet.stream = Fraction(1, 1000), sound
                container.mux(packet)
                begins += Fraction(1536, rate)
    sink = copy(source, tmp_path / "out.webm")
    assert sink.source.damaged == 0
    with av.open(str(sink.path)) as container:
        heard = np.concatenate([frame.to_ndarray().sum(axis=0) for frame in container.decode(audio=0)])
    assert len(heard) / 48000 == pytest.approx(float(begins), abs=0.03)
    for half in (heard[4800:19200], heard[-19200:-4800]):
        spectrum = np.abs(np.fft.rfft(half))
        assert spectrum.argmax() * 48000 / len(half) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_sound_that_a_muxer_knows_and_refuses(tmp_path: Path, suffix: str) -> None:
    source = write_sound(tmp_path / "in.mkv", "vorbis", layout="stereo")
    source.write_bytes(source.read_bytes().replace(b"A_VORBIS", b"A_TRUEHD"))  # PyAV has no encoder of it
    sink = copy(source, tmp_path / f"out{suffix}")
    assert f"{suffix} can't hold audio 1 (truehd): re-encoded as aac" in sink.notices
    assert len(read(sink.path).frames) == 10


ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,16

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def write_words(path: Path, clip: Path, header: bytes | None) -> Path:
    with av.open(str(clip)) as from_clip, av.open(str(path), "w") as container:
        pictures = container.add_stream_from_template(from_clip.streams.video[0])
        words = container.add_stream("ass")
        words.codec_context.subtitle_header = header
        for packet in from_clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        for number, begin in enumerate((100, 100, 300)):
            line = av.Packet(f"{number},0,Default,,0,0,0,,line {number}".encode())
            line.pts = line.dts = begin
            line.duration, line.time_base, line.stream = 200, Fraction(1, 1000), words
            container.mux(line)
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "ass"), (".mp4", "mov_text"), (".webm", "webvtt")])
def test_subtitles_that_begin_together(clip: Clip, tmp_path: Path, suffix: str, codec: str) -> None:
    sink = copy(write_words(tmp_path / "in.mkv", clip(), ASS_HEADER), tmp_path / f"out{suffix}")
    assert sink.source.damaged == 0
    with av.open(str(sink.path)) as container:
        assert container.streams.subtitles[0].codec_context.codec.canonical_name == codec
        lines = [bytes(p) for p in container.demux(subtitles=0)]
    assert [line[-6:] for line in lines if b"line" in line] == [b"line 0", b"line 1", b"line 2"]


def test_subtitles_that_say_too_little_of_themselves_are_left_out(clip: Clip, tmp_path: Path) -> None:
    source = write_words(tmp_path / "in.mkv", clip(), None)
    sink = copy(source, tmp_path / "out.mp4")
    assert [n for n in sink.notices if "can't hold subtitle 1 (ssa): left out" in n]
    assert len(read(sink.path).frames) == 12
    assert not copy(source, tmp_path / "out.mkv").notices


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".webm"])
def test_sound_in_packets_shorter_than_a_tick(clip: Clip, tmp_path: Path, suffix: str) -> None:
    """As TrueHD in Matroska: several packets have one dts there, and none is left out."""
    source, samples = tmp_path / "in.mkv", 40
    with av.open(str(clip())) as from_clip, av.open(str(source), "w") as container:
        pictures = container.add_stream_from_template(from_clip.streams.video[0])
        sound = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        for packet in from_clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        for number in range(600):
            packet = av.Packet(number.to_bytes(2, "little") * samples)
            packet.pts = packet.dts = number * samples
            packet.duration, packet.time_base, packet.stream = samples, Fraction(1, 48000), sound
            container.mux(packet)
    sink = copy(source, tmp_path / f"out{suffix}")
    assert sink.source.damaged == 0
    with av.open(str(sink.path)) as container:
        frames = list(container.decode(audio=0))
    heard = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    if suffix == ".webm":
        assert sum(frame.samples for frame in frames) == pytest.approx(600 * samples, abs=1000)
    else:
        assert (heard == np.repeat(np.arange(600), samples)).all()
        assert frames[-1].time == pytest.approx(0.5, abs=0.05)


def test_what_has_another_name_as_a_codec_is_copied(tmp_path: Path) -> None:
    """DTS is FFmpeg's decoder ``dca``, DVD's subtitles ``dvdsub``."""
    whole, source = write_sound(tmp_path / "whole.mkv", "ac3"), tmp_path / "in.mkv"
    with av.open(str(whole)) as from_whole, av.open(str(source), "w") as container:
        streams = [container.add_stream_from_template(s) for s in from_whole.streams]
        words = container.add_stream("dvdsub")
        words.codec_context.extradata = b"size: 64x48\n"
        for packet in from_whole.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
        picture = av.Packet(bytes(16))
        picture.pts = picture.dts = 100
        picture.duration, picture.time_base, picture.stream = 200, Fraction(1, 1000), words
        container.mux(picture)
    source.write_bytes(source.read_bytes().replace(b"A_AC3", b"A_DTS"))  # PyAV has no encoder of it
    sink = copy(source, tmp_path / "out.mkv")
    assert not sink.notices
    with av.open(str(source)) as before, av.open(str(sink.path)) as after:
        for container in (before, after):
            names = [s.codec_context.codec.canonical_name for s in container.streams][1:]
            assert names == ["dts", "dvd_subtitle"]
        packets = [[bytes(p) for p in c.demux(1, 2) if p.size] for c in (before, after)]
    assert packets[0] == packets[1]
    assert len(packets[0]) > 10


def test_sound_of_an_unknown_codec_is_named(clip: Clip, tmp_path: Path) -> None:
    """As the spatial sound of new phones, which FFmpeg does not know yet."""
    source = tmp_path / "in.mp4"
    content = clip(audio="aac").read_bytes()
    source.write_bytes(content.replace(b"mp4a", b"apac").replace(b"esds", b"dapa"))
    sink = copy(source, tmp_path / "out.mp4")
    assert [n for n in sink.notices if "audio stream 1 of the source, of a codec unknown here" in n]


def cut_in_front(clip: Path, path: Path, seconds: float) -> Path:
    """The clip from there on, copied: an edit list hides what a key frame and its sound begin with."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        streams = {s.index: container.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            shift = round(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream.index]
            container.mux(packet)
    return path


def verified(source: Path, output: Path, matter: Matter) -> Summary:
    return process(source, output, background="green", matter=matter, verify=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_that_an_edit_list_hides_stays_hidden(
    clip: Clip, matter: Matter, tmp_path: Path, suffix: str
) -> None:
    source = cut_in_front(clip(audio="aac", frames=48), tmp_path / "cut.mp4", 1.0)
    output = verified(source, tmp_path / f"out{suffix}", matter).output
    before, after = read(source), read(output)
    assert len(after.frames) == len(before.frames) < 48
    with av.open(str(output)) as container:
        sound, video = container.streams.audio[0], container.streams.video[0]
        lead = float(video.start_time * video.time_base - sound.start_time * sound.time_base)
    assert lead < 0.15

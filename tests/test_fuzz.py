"""A hundred and more broken files through the command: never a traceback, a hang, or a leftover."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from pathlib import Path

import av
import pillow_heif
import pytest
from conftest import portrait, read
from PIL import Image
from test_cli import FAST, call

from banet_stream.background import open_background
from banet_stream.errors import BanetStreamError
from banet_stream.photo import open_photo

Clip = Callable[..., Path]
BASES: dict[str, dict[str, object]] = {
    ".mp4": {"audio": "aac"},
    ".mov": {"audio": "aac", "index_first": True, "codec": "libx265"},
    ".mkv": {"audio": "libopus"},
    ".webm": {"audio": "libopus", "codec": "libvpx-vp9"},
    ".ts": {"audio": "aac"},
    ".avi": {"codec": "mpeg4"},
}
PER_BASE = 12
# Done; what could be read is in OUTPUT.
WRITTEN = (0, 9)
REFUSED = (3,)


def flip(content: bytearray, generator: random.Random) -> bytearray:
    for _ in range(generator.choice([1, 5, 50, 500])):
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    return content


def truncate(content: bytearray, generator: random.Random) -> bytearray:
    return content[: generator.randrange(1, len(content))]


def shuffle(content: bytearray, generator: random.Random) -> bytearray:
    size = generator.choice([64, 188, 1000])
    head = content[: generator.choice([0, 200, 1200])]
    rest = content[len(head) :]
    pieces = [rest[i : i + size] for i in range(0, len(rest), size)]
    generator.shuffle(pieces)
    return head + b"".join(pieces)


def wrong_header(content: bytearray, generator: random.Random) -> bytearray:
    headers = [
        b"\x1aE\xdf\xa3",
        b"\0\0\0\x20ftypisom",
        b"RIFF\xff\xff\xff\xffAVI ",
        b"G" * 8,
        b"OggS",
        b"\xff" * 16,
    ]
    header = generator.choice(headers)
    return bytearray(header) + content[len(header) :]


def blank(content: bytearray, generator: random.Random) -> bytearray:
    start, size = generator.randrange(len(content)), generator.choice([16, 400, 3000])
    content[start : start + size] = bytes(len(content[start : start + size]))
    return content


def repeat(content: bytearray, generator: random.Random) -> bytearray:
    start = generator.randrange(len(content))
    return content[:start] + content[max(0, start - 2000) :]


MUTATIONS = [flip, truncate, shuffle, wrong_header, blank, repeat]


def check(source: Path, capsys: pytest.CaptureFixture[str], *, suffix: str, what: str) -> int:
    """Runs the command on a broken file and returns its exit code."""
    output = source.parent / f"out{suffix}"
    code, out, err = call(capsys, source, "-o", output, "--bg", "green", *FAST)
    assert "Traceback" not in err + out, what
    assert code in (*WRITTEN, *REFUSED), f"{what}: {code}: {err}"
    left = {p.name for p in source.parent.iterdir()} - {source.name}
    if code in WRITTEN:
        assert left == {output.name}, what
        assert read(output).frames, what
        output.unlink()
    else:
        assert not left, what
        said = [line for line in err.splitlines() if line.startswith("banet-stream: ")]
        assert len(said) == 1, f"{what}: {err}"
    assert not [t for t in threading.enumerate() if t.name.startswith("banet-")], what
    return code


@pytest.mark.parametrize("suffix", BASES)
def test_broken_videos(clip: Clip, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = clip(suffix=suffix, noise=True, **BASES[suffix]).read_bytes()
    generator = random.Random(suffix)
    codes = []
    for number in range(PER_BASE):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        source = tmp_path / f"in{suffix}"
        source.write_bytes(mutate(bytearray(whole), generator))
        what = f"{suffix} {number} {mutate.__name__}"
        target = generator.choice([".mp4", ".mkv"])
        codes.append(check(source, capsys, suffix=target, what=what))
    assert set(codes) & set(REFUSED) or set(codes) & {9}  # the mutations do break something


def test_sound_of_which_nothing_whole_is_left(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rate is known of it then, without which no file can hold it."""
    content = clip(suffix=".ts", audio="aac").read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    sound = [p for p in packets if (p[1] & 0x1F) << 8 | p[2] == 0x101]  # by the muxer's usual number
    assert len(sound) > 1
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(p for p in packets if p not in sound[1:]))
    for suffix in (".mp4", ".mkv", ".webm"):
        output = tmp_path / f"out{suffix}"
        code, _, err = call(capsys, source, "-o", output, "--bg", "green", *FAST)
        assert code == 9
        assert "audio 1 (aac) of the source can't be read: left out" in err
        assert "0 of 12 frames lost, 1 damaged packets" in err
        streams = read(output)
        assert len(streams.frames) == 12
        assert not streams.audio_packets


def test_sound_that_a_muxer_refuses(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit of a header of AAC: FFmpeg calls that not implemented, not damaged."""
    content = bytearray(clip(suffix=".ts", audio="aac").read_bytes())
    first = content.index(b"\xff\xf1")
    following = content.index(content[first : first + 3], first + 7)
    content[following + 1] &= 0xFE  # with a checksum
    content[following + 6] |= 0x01  # two blocks in one packet
    source, output = tmp_path / "in.ts", tmp_path / "out.mp4"
    source.write_bytes(content)
    assert "0 of 12 frames lost, 1 damaged packets" in kept(source, output, capsys)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_without_its_header(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    source.write_bytes(clip(audio="aac").read_bytes().replace(b"esds", b"gone"))
    code, _, err = call(capsys, source, "-o", output, "--bg", "green", *FAST)
    assert code == 0, err
    assert "note: audio 1 (aac) of the source lacks its header: re-encoded as" in err
    with av.open(str(output)) as written:
        assert sum(sound.samples / sound.sample_rate for sound in written.decode(audio=0)) > 0.4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_that_comes_twice(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    content = clip(suffix=".flv", audio="aac").read_bytes()
    tags, place = [], 9 + 4  # the header, and the size of no tag before the first
    while place < len(content):
        size = 11 + int.from_bytes(content[place + 1 : place + 4]) + 4
        tags.append(content[place : place + size])
        place += size
    sound = [number for number, tag in enumerate(tags) if tag[0] == 8]
    twice = sound[5]
    tags[twice:twice] = [tags[twice - 1], tags[twice]]
    source, output = tmp_path / "in.flv", tmp_path / f"out{suffix}"
    source.write_bytes(content[:13] + b"".join(tags))
    assert "0 of 12 frames lost" in kept(source, output, capsys)


def kept(source: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """All twelve frames and some sound are in the output of a damaged source; returns what was said."""
    code, _, err = call(capsys, source, "-o", output, "--bg", "green", *FAST)
    assert code == 9
    streams = read(output)
    assert len(streams.frames) == 12
    assert streams.audio_packets
    return err


def test_broken_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(0)
    for number in range(24):
        kind = ("JPEG", "PNG", "WEBP", "TIFF")[number % 4]
        buffer = io.BytesIO()
        portrait(64, 80).save(buffer, kind)
        mutate = MUTATIONS[number // 4 % len(MUTATIONS)]
        source = tmp_path / f"in.{kind.lower()}"
        source.write_bytes(mutate(bytearray(buffer.getvalue()), generator))
        output = tmp_path / "out.png"
        code, out, err = call(capsys, source, "-o", output, "--bg", "green", *FAST)
        what = f"{number} {kind} {mutate.__name__}: {err}"
        assert "Traceback" not in err + out, what
        # What is no photo any more may still be a video to FFmpeg, which can't become one picture.
        assert code in (0, 3, 5), what
        assert output.exists() == (code == 0), what
        output.unlink(missing_ok=True)
        assert [p.name for p in tmp_path.iterdir()] == [source.name], what
        source.unlink()


def test_broken_backgrounds(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = clip(suffix=".mp4", noise=True).read_bytes()
    generator = random.Random(1)
    source, behind, output = clip(frames=3), tmp_path / "behind.mp4", tmp_path / "out.mp4"
    for number, mutate in enumerate(MUTATIONS * 2):
        behind.write_bytes(mutate(bytearray(whole), generator))
        code, out, err = call(capsys, source, "-o", output, "--bg", behind, *FAST)
        assert "Traceback" not in err + out, f"{number}: {err}"
        assert code in (0, 4), f"{number} {mutate.__name__}: {err}"
        assert output.exists() == (code == 0)
        output.unlink(missing_ok=True)


PHOTO_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "HEIF")


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it finds in them
@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_broken_pictures_are_refused_or_seen(tmp_path: Path, name: str) -> None:
    """As INPUT and as background: whatever Pillow raises, it is an error in words."""
    whole, photo, exif = io.BytesIO(), tmp_path / "photo", Image.Exif()
    exif[0x0112] = 6
    picture = portrait(64, 48)
    if name == "HEIF":
        pillow_heif.from_pillow(picture).save(whole)
    elif name == "GIF":
        picture.save(whole, name, save_all=True, append_images=[picture.rotate(90)])
    else:
        picture.save(whole, name, **({} if name == "BMP" else {"exif": exif}))
    generator, refused = random.Random(name), []
    for number in range(60):
        content = bytearray(whole.getvalue())
        for _ in range(generator.choice([1, 3, 10])):  # mostly in the head, where sizes and places are told
            content[generator.randrange(2, min(300, len(content)))] = generator.randrange(256)
        photo.write_bytes(truncate(content, generator) if number % 5 == 0 else content)
        for use in (open_photo, open_background):
            try:
                found = use(str(photo))
            except BanetStreamError as error:
                refused.append(str(error))
            else:
                if found is not None:
                    found.close()
    assert len(refused) > 10
    assert all("photo: " in words for words in refused)

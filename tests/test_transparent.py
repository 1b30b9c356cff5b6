"""``--bg transparent`` and ``--alpha-out``, read back by another program: Debian's ffmpeg."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import read
from PIL import Image
from test_background import blank

from banet_stream import EncodeOptions, Matter, ops, process
from banet_stream.cutout import cut_out
from banet_stream.decode import Source, decode
from banet_stream.errors import Interrupted, OutputError
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame
from banet_stream.matte_out import grey_frame
from banet_stream.numbering import makes
from banet_stream.reference import ALPHA_CEILING, ALPHA_FLOOR, shrink_to_chroma

Clip = Callable[..., Path]
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to check with")


def soft_disc(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return ((0.75 - (x * x + y * y).sqrt()) * 6 + 0.5).clamp(0, 1)


def disc_frame(alpha: torch.Tensor, behind: int, name: str = "yuv420p") -> Frame:
    """A textured subject before a flat background, mixed by the cover that the operators will find."""
    frame = blank(96, 96, name)
    generator = torch.Generator().manual_seed(0)
    depth = frame.format.depth
    planes = []
    for plane in frame.planes:
        cover = torch.nn.functional.interpolate(alpha[None, None], plane.shape, mode="bilinear")[0, 0]
        cover = ((cover - ALPHA_FLOOR) / (ALPHA_CEILING - ALPHA_FLOOR)).clamp(0, 1)
        subject = (90 + 40 * torch.rand(plane.shape, generator=generator)) * 2 ** (depth - 8)
        planes.append((behind * 2 ** (depth - 8) * (1 - cover) + subject * cover).to(plane.dtype))
    return frame.with_planes(planes)


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p12le"])
@pytest.mark.parametrize("colour", [(16, 128, 128), (200, 60, 210)])
def test_laid_over_a_colour_it_is_the_composite(name: str, colour: tuple[int, int, int]) -> None:
    alpha = soft_disc(64, 64)
    frame = disc_frame(alpha, 220, name)
    depth, subsampling = frame.format.depth, frame.format.subsampling
    unit = 2 ** (depth - 8)
    behind = [torch.full_like(p, c * unit) for p, c in zip(frame.planes, colour, strict=True)]
    wanted = ops.composite(frame.planes, alpha, behind, depth=depth, subsampling=subsampling)
    cut = cut_out(frame, alpha)
    cover = cut.alpha
    assert cover is not None
    chroma = shrink_to_chroma(cover, subsampling)
    for plane, own, back, expected in zip(cut.planes, (cover, chroma, chroma), behind, wanted, strict=True):
        laid = own * plane.float() + (1 - own) * back.float()
        assert (laid - expected.float()).abs().max() <= 2 * unit
        core = own == 1
        assert core.any()
        assert torch.equal(plane[core], expected[core])


def test_nothing_of_the_room_is_left_in_its_colours() -> None:
    """Also where alpha is 0, and where it is soft but for what decontamination can't tell."""
    alpha = soft_disc(64, 64)
    dark, bright = (cut_out(disc_frame(alpha, level), alpha) for level in (20, 235))
    outside = dark.alpha == 0
    assert outside.float().mean() > 0.2
    for a, b in zip(dark.planes, bright.planes, strict=True):
        gone = outside if a.shape == outside.shape else shrink_to_chroma(outside.float(), (2, 2)) == 1
        difference = (a.float() - b.float())[gone].abs()
        assert difference.mean() < 0.1 * (235 - 20)


def test_a_frame_without_anybody_is_black() -> None:
    cut = cut_out(disc_frame(torch.zeros(64, 64), 220), torch.zeros(64, 64))
    assert cut.alpha is not None
    assert cut.alpha.max() == 0
    assert [int(p.float().mean()) for p in cut.planes] == [16, 128, 128]


@pytest.mark.parametrize(("depth", "levels"), [("yuv420p", (16, 235)), ("yuv422p10le", (64, 940))])
def test_the_matte_as_video_is_limited_range_grey(depth: str, levels: tuple[int, int]) -> None:
    frame = blank(33, 17, depth)
    alpha = torch.zeros(17, 33)
    alpha[:, 16:] = 1
    grey = grey_frame(replace(frame, alpha=alpha))
    assert (int(grey.planes[0].min()), int(grey.planes[0].max())) == levels
    assert not grey.colour.full_range
    assert grey.format == PIXEL_FORMATS["yuv420p" if depth == "yuv420p" else "yuv420p10le"]


def rgba(path: Path, index: int, decoder: list[str]) -> np.ndarray:
    """A frame as ffmpeg sees it: [H, W, 4] uint8."""
    size = read(path).frames[0]
    command = ["ffmpeg", "-v", "error", *decoder, "-i", str(path), "-vf", f"select=eq(n\\,{index})"]
    command += ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(size.height, size.width, 4)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "codec", "decoder"),
    [
        (".mov", None, []),
        (".webm", None, ["-c:v", "libvpx-vp9"]),
        (".mkv", None, []),
        (".mkv", "vp9", ["-c:v", "libvpx-vp9"]),
        (".mkv", "prores", []),
    ],
)
def test_every_container_that_holds_alpha(
    clip: Clip, matter: Matter, tmp_path: Path, suffix: str, codec: str | None, decoder: list[str]
) -> None:
    source, output = clip(audio="aac", frames=4), tmp_path / f"out{suffix}"
    said: list[str] = []
    summary = process(
        source,
        output,
        background="transparent",
        matter=matter,
        encoding=EncodeOptions(codec),
        announce=said.append,
    )
    assert summary.frames == 4
    assert len(said) == 1
    assert "for 4 frames" in said[0]
    assert "straight alpha" in said[0]
    picture = rgba(output, 2, decoder)
    original = read(source).frames[2].to_ndarray(format="rgb24").astype(int)
    assert picture[22:48, 38:54, 3].mean() > 250  # her face
    assert picture[:20, :20, 3].max() < 8  # the wall
    assert np.abs(picture[22:48, 38:54, :3] - original[22:48, 38:54]).mean() < 3
    assert len(read(output).audio_packets) > 0


def test_numbered_pictures(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    source = clip(frames=11)
    said: list[str] = []
    output = tmp_path / "new" / "%03d.png"
    process(source, output, background="transparent", matter=matter, announce=said.append)
    names = sorted(p.name for p in output.parent.iterdir())
    assert names == [f"{i:03d}.png" for i in range(1, 12)]
    sizes = sum(p.stat().st_size for p in output.parent.iterdir())
    promised = float(said[0].split("about ")[1].split(" kB")[0]) * 1000
    assert promised == pytest.approx(sizes, rel=0.3)
    with Image.open(output.parent / "003.png") as picture:
        assert picture.mode == "RGBA"
        pixels = np.asarray(picture)
    assert pixels[22:48, 38:54, 3].mean() > 250
    assert pixels[:20, :20, 3].max() == 0
    with pytest.raises(OutputError, match=r"001\.png: exists already|exists already; use --overwrite"):
        process(source, output, background="transparent", matter=matter)
    (output.parent / "notes.txt").write_text("mine")
    process(clip(frames=2), output, background="green", matter=matter, encoding=EncodeOptions(overwrite=True))
    assert sorted(p.name for p in output.parent.iterdir()) == ["001.png", "002.png", "notes.txt"]


def big_endian(frame: av.VideoFrame, channels: int) -> np.ndarray:
    rows = np.frombuffer(frame.planes[0], ">u2").reshape(frame.height, -1)
    return rows[:, : frame.width * channels].reshape(frame.height, frame.width, channels)


def test_pictures_of_ten_bits_have_sixteen(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    source = clip(pixel_format="yuv444p10le", codec="ffv1", suffix=".mkv", frames=1, space=1, range=2)
    process(source, tmp_path / "%d.png", background="transparent", matter=matter)
    picture = read(tmp_path / "1.png").frames[0]
    assert picture.format.name == "rgba64be"
    wanted = read(source).frames[0].reformat(format="rgb48be", src_colorspace=1, src_color_range=2)
    samples, exact = big_endian(picture, 4), big_endian(wanted, 3)
    core = samples[..., 3] == 65535
    assert core.mean() > 0.2
    assert np.abs(samples[core][:, :3].astype(int) - exact[core]).max() <= 130  # half a 9-bit step


def test_turned_video_makes_upright_pictures(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    process(clip(width=128, height=96, rotation=90, frames=1), tmp_path / "%d.png", matter=matter)
    with Image.open(tmp_path / "1.png") as picture:
        assert picture.size == (96, 128)


@pytest.mark.parametrize("matte", ["matte.mp4", "matte.mkv", "mattes/%02d.png"])
@pytest.mark.parametrize("background", ["green", "transparent"])
def test_the_matte_beside(clip: Clip, matter: Matter, tmp_path: Path, matte: str, background: str) -> None:
    output = tmp_path / ("out.mp4" if background == "green" else "out.mkv")
    source = clip(audio="aac")
    summary = process(source, output, background=background, matter=matter, alpha_out=tmp_path / matte)
    assert summary.frames == 12
    name = (tmp_path / matte).parent / "04.png" if "%" in matte else tmp_path / matte
    after = read(name)
    assert not after.audio_packets
    if "%" not in matte:
        assert after.pts_seconds == pytest.approx(read(source).pts_seconds, abs=1.1e-3)
    grey = (after.frames[3] if "%" not in matte else after.frames[0]).to_ndarray(format="gray")
    assert grey[22:48, 38:54].mean() > 251
    assert grey[:20, :20].mean() < 4


def test_interrupted_pictures_stay_in_their_part(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    def watch(now: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "new" / "%d.png"
    with pytest.raises(Interrupted, match=r"pictures\.part"):
        process(clip(), output, matter=matter, progress=watch)
    assert [p.name for p in output.parent.iterdir()] == ["pictures.part"]


def test_an_error_leaves_no_pictures(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from banet_stream import sequence

    def full(self: object, frame: object) -> bytes:
        raise OSError(28, "No space left on device")

    output, matte = tmp_path / "new" / "%d.png", tmp_path / "matte.mp4"
    monkeypatch.setattr(sequence.Sequence, "write", full)
    with pytest.raises(OutputError, match="disk is full"):
        process(clip(), output, matter=Matter(device="cpu", size=64), alpha_out=matte)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("out.mp4", {}, "can't hold transparency; use .mov"),
        ("out.mov", {"codec": "h264"}, "it with transparency; it holds prores"),
        ("out.webm", {"codec": "av1"}, "it with transparency; it holds vp9"),
        ("out.png", {}, "use a number, as in"),
        ("a%db%d.png", {}, "must hold one number"),
        ("50%/%d.png", {}, "belongs into the file's name"),
        ("none/deep/%d.png", {}, "there is no directory"),
        ("%d.png", {"crf": 5}, "this has one quality"),
    ],
)
def test_what_can_not_be_transparent(
    clip: Clip, tmp_path: Path, output: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        process(clip(), tmp_path / output, background="transparent", encoding=EncodeOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_the_matte_is_not_the_output(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is OUTPUT itself"):
        process(clip(), tmp_path / "o.mp4", alpha_out=tmp_path / "o.mp4")
    with pytest.raises(OutputError, match="is INPUT itself"):
        process(clip(), tmp_path / "o.mp4", alpha_out=clip(), encoding=EncodeOptions(overwrite=True))


def test_names_of_numbered_pictures() -> None:
    assert makes("a%03d.png", "a001.png")
    assert makes("a%03d.png", "a1000.png")
    assert makes("%d.png", "7.png")
    assert not makes("a%03d.png", "a0001.png")  # another pattern's
    assert not makes("a%03d.png", "a7.png")
    assert not makes("a%03d.png", "a001.png.txt")
    assert not makes("a%03d.png", "b001.png")


def test_numbered_pictures_leave_others_alone(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    for name in ("2023.png", "000099.png", "000001.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    allow = EncodeOptions(overwrite=True)
    pattern = tmp_path / "%06d.png"
    with pytest.raises(OutputError, match="is the background itself"):
        process(clip(), pattern, background=str(tmp_path / "000001.png"), matter=matter, encoding=allow)
    with pytest.raises(OutputError, match="is OUTPUT itself"):
        process(clip(), pattern, alpha_out=tmp_path / "%04d.png", matter=matter, encoding=allow)
    assert len(list(tmp_path.iterdir())) == 3
    process(clip(frames=2), pattern, matter=matter, encoding=allow)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000001.png", "000002.png", "2023.png"]


def test_pictures_that_came_meanwhile_stay(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    late = tmp_path / "000001.png"
    with pytest.raises(OutputError, match=r"000001\.png: came to be meanwhile; the result is in .*pictures"):
        process(
            clip(frames=2), tmp_path / "%06d.png", matter=matter, progress=lambda _: late.write_text("mine")
        )
    assert late.read_text() == "mine"
    assert len(list((tmp_path / "pictures.part").iterdir())) == 2


@pytest.mark.parametrize(("moved", "what"), [(0, "the result"), (1, "the rest of the result")])
def test_pictures_that_can_not_be_moved_are_named(
    clip: Clip, matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int, what: str
) -> None:
    right, names = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        names.append(path.name)
        if len(names) > moved:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return right(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    part = tmp_path / "pictures.part"
    with pytest.raises(OutputError) as caught:
        process(clip(frames=3), tmp_path / "%06d.png", matter=matter)
    wanted = f"{tmp_path / '%06d.png'}: can't be written: Operation not permitted; {what} is in {part}"
    assert str(caught.value) == wanted
    assert len(list(part.iterdir())) == 3 - moved


def test_old_pictures_that_can_not_be_removed_stay_with_the_result_beside(
    clip: Clip, matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "000001.png"
    old.write_text("mine")

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(OutputError, match=r"Operation not permitted; the result is in .*pictures\.part"):
        process(clip(frames=2), tmp_path / "%06d.png", matter=matter, encoding=EncodeOptions(overwrite=True))
    assert old.read_text() == "mine"
    assert len(list((tmp_path / "pictures.part").iterdir())) == 2


def test_a_matte_that_can_not_be_moved_leaves_both_results_named(
    clip: Clip, matter: Matter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError) as caught:
        process(clip(frames=2), tmp_path / "o.mp4", matter=matter, alpha_out=tmp_path / "m.mp4")
    parts = [tmp_path / f"{name}.part.mp4" for name in "mo"]
    assert f"the result is in {parts[0]}, that of {tmp_path / 'o.mp4'} in {parts[1]}" in str(caught.value)
    assert [len(read(part).frames) for part in parts] == [2, 2]


def test_colours_are_found_at_any_depth() -> None:
    frame = blank(9, 7, "yuv420p", Colour("bt601", True, 6, 6, 6))
    cut = cut_out(frame, torch.ones(7, 9))
    assert all(torch.equal(a, b) for a, b in zip(cut.planes, frame.planes, strict=True))


def test_decoded_frames_carry_no_alpha(clip: Clip) -> None:
    source = Source(clip(frames=1))
    assert all(isinstance(f, Frame) and f.alpha is None for f in decode(source))
    source.close()

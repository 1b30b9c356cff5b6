"""A photo in, a photo out."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from conftest import portrait
from icc_profiles import grey_profile, wide_profile
from PIL import Image, ImageCms

from banet_stream import EncodeOptions, InputError, Matter, OutputError, cli, process, replace_background
from banet_stream.background import Picture, Video, open_background
from banet_stream.errors import BackgroundError, UsageError
from banet_stream.images import convert_colours, eight_bits
from banet_stream.photo import open_photo

ORIENTATION, MAKER = 0x0112, 0x010F
# How a camera held like that stores an upright picture.
STORED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_photo_to_photo(matter: Matter, tmp_path: Path, orientation: int, suffix: str) -> None:
    upright, source, output = portrait(96, 128), tmp_path / "in.png", tmp_path / f"out{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = orientation, "A camera"
    turn = STORED[orientation]
    (upright.transpose(turn) if turn is not None else upright).save(source, exif=exif)
    summary = process(source, output, background="#00b140", matter=matter)
    assert summary.frames == 1
    with Image.open(output) as picture:
        assert picture.size == (96, 128)
        assert picture.getexif().get(ORIENTATION, 1) == 1
        assert picture.getexif()[MAKER] == "A camera"
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    before = np.asarray(upright).astype(int)
    tolerance = 8 if suffix == ".jpg" else 0  # the core is the photo's own, bit for bit
    assert np.percentile(np.abs(pixels - before)[26:44, 40:52], 90) <= tolerance
    assert np.abs(pixels[:10, :10] - [0x00, 0xB1, 0x40]).max() <= 3
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["in.png", output.name]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_photo_to_transparent_picture(matter: Matter, tmp_path: Path, suffix: str) -> None:
    source, output, matte = tmp_path / "in.jpg", tmp_path / f"out{suffix}", tmp_path / "matte.png"
    portrait(96, 128).save(source, quality=95)
    process(source, output, background="transparent", matter=matter, alpha_out=matte)
    with Image.open(output) as picture:
        assert picture.mode == "RGBA"
        alpha = np.asarray(picture)[..., 3]
    assert alpha[26:44, 40:52].mean() > 250
    assert alpha[:10, :10].max() == 0
    with Image.open(matte) as picture:
        assert np.array_equal(np.asarray(picture), alpha)


def test_a_large_photo_is_no_reason_to_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, output = tmp_path / "photo.png", tmp_path / "out.png"
    Image.new("RGB", (32, 32)).save(photo)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow warns here, and refuses twice as many
    cli.main([str(photo), "-o", str(output), "--device", "cpu", "--size", "64"])
    assert output.exists()


@pytest.mark.parametrize("profiled", ["photo", "background", "both"])
def test_a_background_keeps_its_look_where_profiles_differ(
    matter: Matter, tmp_path: Path, profiled: str
) -> None:
    """As a viewer that knows profiles shows it."""
    profile, photo, out = wide_profile(), tmp_path / "photo.png", tmp_path / "out.png"
    facts = {
        name: {"icc_profile": profile} if profiled in (name, "both") else {}
        for name in ("photo", "background")
    }
    Image.new("RGB", (96, 128), (90, 90, 90)).save(photo, **facts["photo"])  # nobody
    orange = (200, 120, 40)
    Image.new("RGB", (50, 50), orange).save(tmp_path / "back.png", **facts["background"])
    seen = convert_colours(Image.new("RGB", (1, 1), orange), facts["background"].get("icc_profile"), None)
    for behind, shown in ((str(tmp_path / "back.png"), seen.getpixel((0, 0))), ("#c87828", orange)):
        process(photo, out, background=behind, matter=matter, encoding=EncodeOptions(overwrite=True))
        with Image.open(out) as picture:
            assert picture.info.get("icc_profile") == facts["photo"].get("icc_profile")
            found = convert_colours(picture, picture.info.get("icc_profile"), None).getpixel((3, 3))
        assert np.abs(np.subtract(found, shown)).max() <= 2
    if profiled == "photo":
        assert Image.open(out).getpixel((3, 3)) != orange


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_profiles_of_grey_are_used(matter: Matter, tmp_path: Path, mode: str) -> None:
    """Photo and background, as a viewer that knows profiles shows them."""
    Image.new("L", (96, 128), 100).convert(mode).save(tmp_path / "grey.png", icc_profile=grey_profile(1.0))
    expected = round(255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055))
    portrait(96, 128).save(tmp_path / "photo.png")
    process(tmp_path / "photo.png", tmp_path / "a.png", background=tmp_path / "grey.png", matter=matter)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.abs(np.subtract(picture.getpixel((1, 1)), expected)).max() <= 2
    photo = open_photo(tmp_path / "grey.png")
    assert photo is not None
    assert photo.profile is None
    assert np.abs(np.asarray(photo.image, int) - expected).max() <= 2
    photo.close()


def test_indexed_pictures_keep_their_profile(matter: Matter, tmp_path: Path) -> None:
    portrait(96, 128).quantize(64).save(tmp_path / "in.png", icc_profile=wide_profile())
    process(tmp_path / "in.png", tmp_path / "out.png", background="blur", matter=matter)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.info.get("icc_profile") == wide_profile()


def test_a_video_keeps_its_look_behind_a_photo_with_a_profile(matter: Matter, tmp_path: Path) -> None:
    green = (60, 160, 90)
    with av.open(str(tmp_path / "flat.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        flat = av.VideoFrame.from_ndarray(np.full((48, 64, 3), green, np.uint8), format="rgb24")
        container.mux(stream.encode(flat))
        container.mux(stream.encode(None))
    Image.new("RGB", (96, 128), (90, 90, 90)).save(tmp_path / "in.png", icc_profile=wide_profile())  # nobody
    Image.new("RGB", (96, 128), (90, 90, 90)).save(tmp_path / "plain.png")
    background = open_background(tmp_path / "flat.mkv")
    for name, profile in (("in", wide_profile()), ("plain", None), ("in", wide_profile())):
        out = tmp_path / f"{name}-out.png"
        process(
            tmp_path / f"{name}.png",
            out,
            background=background,
            matter=matter,
            encoding=EncodeOptions(overwrite=True),
        )
        with Image.open(out) as picture:
            found = convert_colours(picture, profile, None).getpixel((3, 3))
        assert np.abs(np.subtract(found, green)).max() <= 4
    background.close()


def test_a_background_forgets_the_photo_before(matter: Matter, tmp_path: Path) -> None:
    Image.new("RGB", (96, 128), (90, 90, 90)).save(tmp_path / "in.png", icc_profile=wide_profile())
    background, rgb = open_background("#c87828"), np.full((128, 96, 3), 90, np.uint8)
    process(tmp_path / "in.png", tmp_path / "out.png", background=background, matter=matter)
    shown = replace_background(rgb, background=background, matter=matter)[3, 3]
    assert np.abs(shown.astype(int) - (200, 120, 40)).max() <= 2


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rgb must be uint8 .*, got Image"):
        replace_background(Image.new("RGB", (4, 4)))  # type: ignore[arg-type]


def test_a_profile_that_is_none_changes_nothing() -> None:
    dot = Image.new("RGB", (1, 1), (1, 2, 3))
    for source, target in ((b"none", None), (None, b"none"), (wide_profile()[:200], None)):
        assert convert_colours(dot, source, target) is dot


def test_the_colour_profile_stays_and_the_thumbnail_goes(matter: Matter, tmp_path: Path) -> None:
    """A thumbnail would show the background that was taken away."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    small = io.BytesIO()
    portrait(48, 64).save(small, "JPEG")
    thumbnail = small.getvalue()
    # TIFF header; IFD0: Make; IFD1: where the thumbnail is and how long.
    header = b"II*\0\x08\0\0\0"
    first = b"\x01\0" + b"\x0f\x01\x02\0\x04\0\0\0ABC\0" + (26).to_bytes(4, "little")
    place = (26 + 2 + 24 + 4).to_bytes(4, "little")
    second = b"\x02\0" + b"\x01\x02\x04\0\x01\0\0\0" + place
    second += b"\x02\x02\x04\0\x01\0\0\0" + len(thumbnail).to_bytes(4, "little") + bytes(4)
    exif = b"Exif\0\0" + header + first + second + thumbnail
    source, output = tmp_path / "in.jpg", tmp_path / "out.jpg"
    portrait(96, 128).save(source, exif=exif, icc_profile=profile)
    assert thumbnail in source.read_bytes()
    summary = process(source, output, background="green", matter=matter)
    assert summary.engine.endswith("mirrored too")
    content = output.read_bytes()
    assert content.count(b"\xff\xd8\xff") == 1
    with Image.open(output) as picture:
        assert picture.info["icc_profile"] == profile
        assert picture.getexif()[MAKER] == "ABC"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_every_mode(matter: Matter, tmp_path: Path, mode: str) -> None:
    source = tmp_path / "in.tif"
    picture = portrait(64, 80)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    source = tmp_path / ("in.png" if mode in ("P", "LA") else "in.tif")
    picture.save(source)
    process(source, tmp_path / "out.png", matter=matter)
    with Image.open(tmp_path / "out.png") as result:
        assert (result.mode, result.size) == ("RGB", (64, 80))
    if mode == "I;16":
        photo = open_photo(source)
        assert photo is not None
        assert np.array_equal(np.asarray(photo.image.convert("L")), np.asarray(portrait(64, 80).convert("L")))


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("out.mp4", {}, "a photo becomes a picture"),
        ("%d.png", {}, "a photo becomes a picture"),
        ("out.png", {"crf": 3}, "this has one quality"),
        ("out.png", {"encoder": "software"}, "--encoder.* are for video"),
        ("none/out.png", {}, "there is no directory"),
        ("in.png", {"overwrite": True}, "is INPUT itself"),
        ("in.png", {}, "exists already"),
    ],
)
def test_what_a_photo_can_not_become(
    tmp_path: Path, output: str, options: dict[str, object], message: str
) -> None:
    source = tmp_path / "in.png"
    portrait(32, 32).save(source)
    before = source.read_bytes()
    with pytest.raises(OutputError, match=message):
        process(source, tmp_path / output, encoding=EncodeOptions(**options))
    assert source.read_bytes() == before


def test_jpeg_is_not_transparent(tmp_path: Path) -> None:
    portrait(32, 32).save(tmp_path / "in.png")
    with pytest.raises(OutputError, match=r"\.jpg can't hold transparency; use \.png"):
        process(tmp_path / "in.png", tmp_path / "out.jpg", background="transparent")


@pytest.mark.parametrize("name", ["in.gif", "in.jp2", "in.tga"])
def test_still_pictures_of_other_kinds(matter: Matter, tmp_path: Path, name: str) -> None:
    portrait(64, 80).save(tmp_path / name)
    process(tmp_path / name, tmp_path / "out.png", background="green", matter=matter)
    with Image.open(tmp_path / "out.png") as result:
        assert (result.mode, result.size) == ("RGB", (64, 80))


@pytest.mark.parametrize("name", ["in.jpg", "in.png", "in.tga"])
def test_a_picture_that_only_its_name_tells(tmp_path: Path, name: str) -> None:
    """It is not called a video."""
    (tmp_path / name).write_bytes(b"no picture" * 100)
    refused_as_damaged(tmp_path, name)


def test_a_picture_cut_off(tmp_path: Path) -> None:
    portrait(64, 80).save(tmp_path / "in.avif")
    content = (tmp_path / "in.avif").read_bytes()
    (tmp_path / "in.avif").write_bytes(content[: len(content) // 2])
    refused_as_damaged(tmp_path, "in.avif")


def refused_as_damaged(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"in\.\w+: a picture that is damaged, or of a kind unknown here"):
        process(tmp_path / name, tmp_path / "out.png")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_what_pillow_says_beside_its_errors_is_not_printed(tmp_path: Path) -> None:
    whole, source = io.BytesIO(), tmp_path / "in.tif"
    portrait(64, 80).save(whole, "TIFF")
    source.write_bytes(whole.getvalue()[:38])  # in the middle of its tags
    command = [sys.executable, "-m", "banet_stream", str(source), "-o", str(tmp_path / "out.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == InputError.exit_code
    assert run.stderr.splitlines() == [
        f"banet-stream: {source}: a picture that is damaged, or of a kind unknown here"
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"start_seconds": 2.0, "resume": True}, "--start, --resume"),
        ({"duration_seconds": 1.0}, "--duration"),
        ({"deinterlace": "on"}, "--deinterlace"),
    ],
)
def test_what_only_videos_have_is_refused(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    portrait(64, 80).save(tmp_path / "in.png")
    with pytest.raises(UsageError, match=f"{named}: only for videos, and .*in.png is a photo"):
        process(tmp_path / "in.png", tmp_path / "out.png", **options)
    assert not (tmp_path / "out.png").exists()


def test_a_truncated_photo(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(source)
    source.write_bytes(source.read_bytes()[:4000])
    with pytest.raises(InputError, match="the picture can't be read"):
        process(source, tmp_path / "out.png")
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


def test_damaged_exif_is_left_out(matter: Matter, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jpg", tmp_path / "out.jpg"
    portrait(64, 80).save(source, exif=b"Exif\0\0nonsense nonsense", dpi=(72, 72))
    summary = process(source, output, background="green", matter=matter)
    assert "the photo's EXIF is damaged: left out" in summary.notices
    with Image.open(output) as picture:
        assert picture.size == (64, 80)
        assert not picture.getexif()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_date_and_place_stay_and_what_a_camera_hides_goes(
    matter: Matter, tmp_path: Path, suffix: str
) -> None:
    """Maker notes, which no one can read, often hold another picture of what the camera saw."""
    date, note, latitude = 0x9003, 0x927C, 2
    source, output = tmp_path / "in.jpg", tmp_path / f"out{suffix}"
    exif = Image.Exif()
    exif[MAKER], exif[ORIENTATION] = "A camera", 1
    exif.get_ifd(0x8769).update({date: "2026:01:02 03:04:05", note: b"hidden" * 20})
    exif.get_ifd(0x8825)[latitude] = (52.0, 30.0, 1.0)
    portrait(64, 80).save(source, exif=exif)
    assert b"hidden" in source.read_bytes()
    summary = process(source, output, background="green", matter=matter)
    with Image.open(output) as picture:
        kept = picture.getexif()
        assert picture.size == (64, 80)
        assert kept[MAKER] == "A camera"
        folders = [kept.get_ifd(0x8769), kept.get_ifd(0x8825)]
    if suffix == ".tif":
        assert any("compressed TIFF can't hold them" in notice for notice in summary.notices)
        assert folders == [{}, {}]
    else:
        assert folders == [{date: "2026:01:02 03:04:05"}, {latitude: (52.0, 30.0, 1.0)}]
    assert b"hidden" not in output.read_bytes()


def test_a_tiff_keeps_its_own_layout(matter: Matter, tmp_path: Path) -> None:
    """What a TIFF says of its samples is no EXIF of the output."""
    exif = Image.Exif()
    exif[MAKER] = "A camera"
    portrait(48, 96).save(tmp_path / "in.tif", exif=exif)
    process(tmp_path / "in.tif", tmp_path / "out.tif", background="transparent", matter=matter)
    with Image.open(tmp_path / "out.tif") as picture:
        assert (picture.mode, picture.size) == ("RGBA", (48, 96))
        assert picture.getexif()[MAKER] == "A camera"


def test_of_several_pages_the_first_is_taken_and_that_is_said(matter: Matter, tmp_path: Path) -> None:
    source, output = tmp_path / "in.tif", tmp_path / "out.png"
    portrait(48, 64).save(source, save_all=True, append_images=[Image.new("RGB", (32, 32))])
    summary = process(source, output, background="green", matter=matter)
    assert any("2 pages: the first is taken" in notice for notice in summary.notices)
    with Image.open(output) as picture:
        assert picture.size == (48, 64)


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    """A photo as iPhones take them: lying on its side, with EXIF."""
    exif, photo = Image.Exif(), tmp_path / "IMG_1.HEIC"
    exif[ORIENTATION], exif[MAKER] = 6, "A phone"
    pillow_heif.from_pillow(portrait(128, 96)).save(photo, quality=90, exif=exif.tobytes())
    return photo


def test_heic_comes_out_upright(matter: Matter, tmp_path: Path, heic: Path) -> None:
    process(heic, tmp_path / "out.jpg", background="green", matter=matter)
    with Image.open(tmp_path / "out.jpg") as picture:
        assert picture.size == (96, 128)
        assert picture.getexif()[MAKER] == "A phone"
        assert ORIENTATION not in picture.getexif()
    photo = open_photo(heic)
    assert photo is not None
    wanted = np.asarray(portrait(128, 96).transpose(Image.Transpose.ROTATE_270), np.int16)
    assert np.abs(np.asarray(photo.image, np.int16) - wanted).mean() < 6
    assert isinstance(open_background(str(heic)), Picture)


@pytest.mark.parametrize("length", [20, 300, 0.5])
def test_damaged_heic_is_refused(heic: Path, length: float) -> None:
    """FFmpeg would make a video of what it finds."""
    content = heic.read_bytes()
    heic.write_bytes(content[: int(length * len(content)) if length < 1 else int(length)])
    with pytest.raises(InputError, match=r"IMG_1\.HEIC: a HEIC photo that is damaged"):
        open_photo(heic)
    with pytest.raises(BackgroundError, match=r"IMG_1\.HEIC"):
        open_background(str(heic))


def test_moving_pictures(matter: Matter, tmp_path: Path) -> None:
    first, others = portrait(48, 64), [Image.new("RGB", (48, 64), name) for name in ("red", "blue")]
    for name in ("a.gif", "a.png", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=others, duration=100)
    for name in ("a.gif", "a.png"):
        assert open_photo(tmp_path / name) is None
        assert isinstance(open_background(str(tmp_path / name)), Video)
        summary = process(tmp_path / name, tmp_path / f"{name}.mp4", background="green", matter=matter)
        assert summary.frames == 3
    with pytest.raises(InputError, match=r"a\.webp: moving WebP can't be decoded here; save it as"):
        process(tmp_path / "a.webp", tmp_path / "out.mp4", matter=matter)
    with pytest.raises(BackgroundError, match=r"a\.webp: moving WebP can't be decoded here"):
        open_background(str(tmp_path / "a.webp"))


@pytest.mark.parametrize("suffix", [".mjpeg", ".mjpg"])
def test_jpegs_one_after_another_are_a_video(matter: Matter, tmp_path: Path, suffix: str) -> None:
    """As network cameras and microscopes write them."""
    one, source, output = io.BytesIO(), tmp_path / f"camera{suffix}", tmp_path / "out.mp4"
    portrait(48, 64).save(one, "JPEG")
    source.write_bytes(5 * one.getvalue())
    assert process(source, output, background="green", matter=matter).frames == 5


def test_grey_of_sixteen_bits_keeps_its_transparency() -> None:
    samples = np.array([[0, 257, 65535]], np.uint16)
    picture = Image.fromarray(samples)
    picture.info["transparency"] = 257
    assert eight_bits(picture).mode == "LA"
    assert np.asarray(eight_bits(picture)).tolist() == [[[0, 255], [1, 0], [255, 255]]]


def test_a_photo_is_a_file(tmp_path: Path) -> None:
    assert open_photo(tmp_path) is None
    assert open_photo("a" * 5000) is None

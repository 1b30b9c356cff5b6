from __future__ import annotations

import os
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import read
from PIL import Image

from banet_stream import Matter, ops, process
from banet_stream.background import Blur, Picture, Plain, Video, crop_to_fill, open_background
from banet_stream.codecs import EncodeOptions
from banet_stream.errors import BackgroundError
from banet_stream.frame import PIXEL_FORMATS, Colour, Frame

BT709 = Colour("bt709", False, 1, 1, 1)
ALPHA = torch.zeros(32, 32)


def blank(
    width: int = 64,
    height: int = 48,
    name: str = "yuv420p",
    colour: Colour = BT709,
    rotation: int = 0,
    seconds: float = 0.0,
    aspect: Fraction = Fraction(1),
) -> Frame:
    layout = PIXEL_FORMATS[name]
    dtype = torch.uint8 if layout.depth == 8 else torch.int16
    x, y = layout.subsampling
    shapes = [(height, width)] + 2 * [(-(-height // y), -(-width // x))]
    planes = [torch.full(shape, 128 << (layout.depth - 8), dtype=dtype) for shape in shapes]
    return Frame(planes, layout, colour, round(seconds * 1000), Fraction(1, 1000), rotation, aspect)


def to_rgb(frame: Frame, planes: list[torch.Tensor]) -> np.ndarray:
    size = (frame.height, frame.width)
    rgb = ops.frame_to_input(
        planes,
        size=size,
        matrix=frame.colour.matrix,
        full_range=frame.colour.full_range,
        depth=frame.format.depth,
    )
    return (rgb[0].permute(1, 2, 0) * 255).numpy()


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p12le"])
def test_a_colour_comes_out_right(matrix: str, full_range: bool, name: str) -> None:
    frame = blank(name=name, colour=Colour(matrix, full_range, 1, 1, 1), width=33, height=17)
    background = open_background("#00b140")
    planes = background.planes(frame, ALPHA)
    assert [p.shape for p in planes] == [p.shape for p in frame.planes]
    assert [p.dtype for p in planes] == [p.dtype for p in frame.planes]
    assert np.abs(to_rgb(frame, planes) - [0x00, 0xB1, 0x40]).max() <= 2


def quadrants(width: int, height: int) -> Image.Image:
    """Red, green / blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    half_height, half_width = height // 2, width // 2
    pixels[:half_height, :half_width] = (255, 0, 0)
    pixels[:half_height, half_width:] = (0, 255, 0)
    pixels[half_height:, :half_width] = (0, 0, 255)
    pixels[half_height:, half_width:] = (255, 255, 255)
    return Image.fromarray(pixels)


def corners(rgb: np.ndarray) -> list[tuple[int, int, int]]:
    rows, columns = rgb.shape[:2]
    places = [(rows // 4, columns // 4), (rows // 4, 3 * columns // 4)]
    places += [(3 * rows // 4, columns // 4), (3 * rows // 4, 3 * columns // 4)]
    return [tuple(round(float(c) / 255) for c in rgb[p]) for p in places]


UPRIGHT = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(400, 100), (100, 400), (64, 48), (1, 1)])
def test_a_picture_fills_the_frame_upright(rotation: int, size: tuple[int, int]) -> None:
    frame = blank(rotation=rotation)
    background = Picture(quadrants(*size))
    upright = np.rot90(to_rgb(frame, background.planes(frame, ALPHA)), rotation // 90)
    if size != (1, 1):
        assert corners(upright) == UPRIGHT


def test_exif_orientation_and_transparency(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    quadrants(64, 64).rotate(90).save(path, exif=exif, quality=95)
    frame = blank(64, 64, "yuv444p")
    assert corners(to_rgb(frame, open_background(str(path)).planes(frame, ALPHA))) == UPRIGHT


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_image_mode(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I;16") else "image.png")
    image = quadrants(32, 32)
    image = Image.fromarray(np.full((32, 32), 40000, np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(path)
    planes = open_background(str(path)).planes(blank(), ALPHA)
    assert planes[0].shape == (48, 64)


def test_a_still_is_converted_once_per_geometry() -> None:
    background = Plain((1, 2, 3))
    first = background.planes(blank(), ALPHA)
    assert background.planes(blank(seconds=1), ALPHA) is first
    assert background.planes(blank(width=32), ALPHA) is not first


def test_anamorphic_frames_get_an_undistorted_picture() -> None:
    # 32x48 samples of 2:1 are shown as 64x48: a 64x48 picture fits exactly, nothing is cropped.
    frame = blank(32, 48, "yuv444p", aspect=Fraction(2))
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :8] = 255
    rgb = to_rgb(frame, Picture(Image.fromarray(pixels)).planes(frame, ALPHA))
    assert rgb[:, :3].min() > 200
    assert rgb[:, 6:].max() < 60


def grey_steps(path: Path, rate: int, levels: list[int]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            picture = np.full((48, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_video_loops_at_its_own_rate(tmp_path: Path) -> None:
    levels = [0, 50, 100, 150, 200]
    background = open_background(str(grey_steps(tmp_path / "steps.mkv", 10, levels)))
    assert isinstance(background, Video)
    shown = []
    for i in range(75):  # 25 fps for three seconds, half a second a loop; the frame's clock starts late
        frame = blank(seconds=7 + i / 25)
        shown.append(round(to_rgb(frame, background.planes(frame, ALPHA)).mean()))
    expected = [levels[int(i / 25 * 10 + 1e-9) % 5] for i in range(75)]
    assert np.abs(np.array(shown) - expected).max() <= 2
    background.close()


def test_a_gap_is_not_decoded_loop_by_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [0, 50, 100, 150, 200]
    background = open_background(str(grey_steps(tmp_path / "steps.mkv", 10, levels)))
    assert isinstance(background, Video)
    read, reads = background._read, []
    monkeypatch.setattr(background, "_read", lambda: reads.append(1) or read())
    for seconds, level in ((0.0, 0), (3600.25, 100), (3600.75, 100), (7201.45, 200), (7201.5, 0)):
        frame = blank(seconds=seconds)
        assert to_rgb(frame, background.planes(frame, ALPHA)).mean() == pytest.approx(level, abs=2)
    assert len(reads) < 40
    background.close()


def mean_shown(background: Video, seconds: float) -> float:
    frame = blank(seconds=seconds)
    return float(to_rgb(frame, background.planes(frame, ALPHA)).mean())


def test_a_video_begins_anew_with_every_run(tmp_path: Path, matter: Matter) -> None:
    """A Background that a caller keeps."""
    background = open_background(grey_steps(tmp_path / "steps.mkv", 10, [0, 50, 100, 150, 200]))
    assert isinstance(background, Video)
    for _ in range(2):
        background.suit(None)
        for seconds, level in ((5.0, 0), (5.1, 50), (5.4, 200), (5.5, 0)):
            assert mean_shown(background, seconds) == pytest.approx(level, abs=2)
    background.close()


def test_the_last_picture_of_a_loop_is_shown_as_long_as_its_file_says(tmp_path: Path) -> None:
    pictures = [Image.new("L", (64, 48), level) for level in (0, 100, 200)]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[200, 200, 1000], loop=0
    )
    background = open_background(tmp_path / "a.gif")
    assert isinstance(background, Video)
    for seconds, level in ((0.0, 0), (0.25, 100), (0.45, 200), (1.35, 200), (1.45, 0), (1.65, 100)):
        assert mean_shown(background, seconds) == pytest.approx(level, abs=3)
    background.close()


@pytest.mark.parametrize("codec", ["ffv1", "libx265"])
def test_grey_of_limited_range_keeps_its_contrast(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        stream.codec_context.color_range = 1
        picture = av.VideoFrame.from_ndarray(np.full((48, 64), 235, np.uint8), format="gray")
        picture.color_range = 1
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    background = open_background(path)
    assert isinstance(background, Video)
    assert mean_shown(background, 0.0) == pytest.approx(255, abs=2)
    background.close()


@pytest.mark.parametrize("size", [(2000, 10), (10, 2000)])
@pytest.mark.parametrize("own", [(34, 18), (2, 2), (320, 240)])
def test_a_video_of_very_different_proportions(
    tmp_path: Path, size: tuple[int, int], own: tuple[int, int]
) -> None:
    path = tmp_path / "small.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *own, "yuv420p"
        pixels = np.full((own[1], own[0], 3), 120, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    background = open_background(path)
    frame = blank(*size)
    assert np.abs(to_rgb(frame, background.planes(frame, ALPHA)) - 120).max() <= 3
    background.close()


def test_what_is_clear_in_a_picture_is_black(tmp_path: Path) -> None:
    """Cut-out pictures often keep the whole room under it."""
    logo = np.zeros((48, 64, 4), np.uint8)
    logo[...] = (255, 0, 255, 0)
    logo[:24] = (0, 200, 0, 255)
    Image.fromarray(logo).save(tmp_path / "logo.png")
    frame = blank()
    shown = to_rgb(frame, open_background(tmp_path / "logo.png").planes(frame, ALPHA))
    assert np.abs(shown[:20] - (0, 200, 0)).max() <= 3
    assert shown[28:].max() <= 3


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(BackgroundError, match="floating-point numbers; save it with 8 or 16 bits"):
        open_background(tmp_path / "f.tif")


def test_light_of_nothing_is_refused() -> None:
    with pytest.raises(BackgroundError, match="--light-wrap: transparent gives no light"):
        open_background("transparent", light_wrap=0.5)


def test_first_page_of_several_and_jpegs_one_after_another(tmp_path: Path) -> None:
    red, green = (Image.new("RGB", (96, 64), colour) for colour in ("red", "lime"))
    red.save(tmp_path / "pages.tif", save_all=True, append_images=[green])
    assert isinstance(open_background(str(tmp_path / "pages.tif")), Picture)
    with (tmp_path / "camera.mjpeg").open("wb") as file:
        for picture in (red, green):
            picture.save(file, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    background = open_background(str(tmp_path / "camera.mjpeg"))
    assert isinstance(background, Video)
    shown = [to_rgb(f, background.planes(f, ALPHA)).mean((0, 1)) for f in (blank(), blank(seconds=0.05))]
    for mean, colour in zip(shown, [(254, 0, 0), (0, 255, 1)], strict=True):
        assert np.abs(mean - colour).max() < 20
    background.close()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("frame_rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_video_stands_upright(
    rotation: int, frame_rotation: int, mirrored: bool, tmp_path: Path
) -> None:
    path = tmp_path / "turned.mp4"
    coded = np.asarray(quadrants(64, 64))
    coded = np.rot90(coded[:, ::-1] if mirrored else coded, -rotation // 90)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(coded), format="rgb24")))
        container.mux(stream.encode(None))
    frame = blank(64, 48, rotation=frame_rotation)
    background = open_background(str(path))
    upright = np.rot90(to_rgb(frame, background.planes(frame, ALPHA)), frame_rotation // 90)
    assert corners(upright) == UPRIGHT
    background.close()


def test_a_video_in_another_colour_space_is_converted(clip: Callable[..., Path]) -> None:
    path = clip(bars=True, space=9, range=2, pixel_format="yuv444p", codec="ffv1", suffix=".mkv", width=112)
    frame = blank(112, 128, "yuv444p", Colour("bt601", False, 6, 6, 6))
    background = open_background(str(path))
    rgb = to_rgb(frame, background.planes(frame, ALPHA))
    wanted = [
        (255, 255, 255),
        (255, 255, 0),
        (0, 255, 255),
        (0, 255, 0),
        (255, 0, 255),
        (255, 0, 0),
        (0, 0, 255),
    ]
    middle = rgb[64, 8::16]
    assert np.abs(middle - wanted).max() <= 4
    background.close()


def raw(path: Path, *pictures: Image.Image) -> Path:
    """H.264 without a container: it can't seek, names no times, and its size may change."""
    with path.open("wb") as file:
        for number, picture in enumerate(pictures):
            part = path.with_name(f"{number}.h264")
            with av.open(str(part), "w", format="h264") as container:
                stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
                stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv444p"
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
                container.mux(stream.encode(None))
            file.write(part.read_bytes())
    return path


def test_a_raw_video_loops_and_may_change_its_size(tmp_path: Path) -> None:
    plain = Image.new("RGB", (64, 48), (100, 100, 100))
    path = raw(tmp_path / "in.h264", plain, plain, quadrants(320, 240), quadrants(32, 24))
    background = open_background(str(path))
    for index in range(12):
        frame = blank(name="yuv444p", seconds=index / 25)
        rgb = to_rgb(frame, background.planes(frame, ALPHA))
        if index % 4 < 2:
            assert np.abs(rgb - 100).max() <= 3
        else:
            assert corners(rgb) == UPRIGHT
    background.close()


@pytest.mark.parametrize("rotation", [0, 90])
def test_an_anamorphic_video_is_not_distorted(rotation: int, tmp_path: Path) -> None:
    # 32x48 samples of 2:1 are shown as 64x48, or 48x64 once turned: nothing is cropped.
    path = tmp_path / "wide.mp4"
    pixels = np.zeros((48, 32, 3), np.uint8)
    pixels[:6] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 32, 48, "yuv444p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        if rotation:
            stream.set_display_rotation(rotation)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    frame = blank(*((48, 64) if rotation else (64, 48)), "yuv444p")
    background = open_background(str(path))
    rgb = np.rot90(to_rgb(frame, background.planes(frame, ALPHA)), -rotation // 90)
    assert rgb[:5].min() > 200
    assert rgb[8:].max() < 60
    background.close()


def test_a_video_from_a_pipe_stays_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = grey_steps(tmp_path / "steps.mkv", 10, [50, 100, 150]).read_bytes()
    writer = threading.Thread(target=lambda: path.write_bytes(content), daemon=True)
    writer.start()
    background = open_background(str(path))
    shown = []
    for index in range(6):
        frame = blank(seconds=index / 10)
        shown.append(round(to_rgb(frame, background.planes(frame, ALPHA)).mean()))
    assert shown == pytest.approx([50, 100, 150, 150, 150, 150], abs=2)
    writer.join(10)
    background.close()


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", ".png"), ("I;16", ".tif"), ("I", ".tif")])
def test_sixteen_bits_of_grey(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"grey{suffix}"
    kind = np.uint16 if mode == "I;16" else np.int32
    Image.fromarray(np.full((32, 32), 100 * 257, kind)).save(path)
    frame = blank(name="yuv444p")
    rgb = to_rgb(frame, open_background(str(path)).planes(frame, ALPHA))
    assert np.abs(rgb - 100).max() <= 2


def test_a_file_url(tmp_path: Path) -> None:
    path = tmp_path / "ein ü.png"
    quadrants(64, 48).save(path)
    background = open_background(path.as_uri())
    assert background.name == str(path)
    assert corners(to_rgb(blank(), background.planes(blank(), ALPHA))) == UPRIGHT


def test_a_name_too_long() -> None:
    with pytest.raises(BackgroundError, match=r"can't be read .*name too long"):
        open_background("a" * 5000)


def test_a_folder_that_may_not_be_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(BackgroundError, match=r"closed/in\.png: can't be read \(Permission denied\)"):
        open_background("closed/in.png")


def test_blur_strength() -> None:
    assert isinstance(open_background("blur"), Blur)
    assert open_background("blur:80").strength == 80
    frame = blank(128, 128)
    frame.planes[0][:, 64:] = 235
    weak = Blur(10).planes(frame, ALPHA)[0].float().diff(dim=1).abs().max()
    strong = Blur(100).planes(frame, ALPHA)[0].float().diff(dim=1).abs().max()
    assert strong < weak < 107


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "office.png", "no such file; a background is an image, a video, a colour"),
        (lambda folder: "blur:0", "must be between 1 and 100"),
        (lambda folder: "blur:much", "no such file"),
        (lambda folder: "#12", "no such file"),
        (lambda folder: folder, "is a directory|can't be read"),
        (lambda folder: write(folder / "broken.png", b"\x89PNG\r\n\x1a\nnonsense"), "broken.png"),
        (lambda folder: write(folder / "text.jpg", b"hello"), "holds no frame that can be decoded"),
        (lambda folder: write(folder / "empty.png", b""), "is empty"),
    ],
)
def test_what_is_no_background_says_why(
    make: Callable[[Path], Path | str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BackgroundError, match=message):
        open_background(str(make(tmp_path)))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    write(path, path.read_bytes()[:4000])
    with pytest.raises(BackgroundError, match="can't be read"):
        open_background(str(path))


@pytest.mark.parametrize(
    ("size", "aspect"), [((100, 50), 1.0), ((50, 100), 2.0), ((1, 1), 1.5), ((7, 1000), 1.0)]
)
def test_crop_to_fill(size: tuple[int, int], aspect: float) -> None:
    left, top, right, bottom = crop_to_fill(*size, aspect)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert left == size[0] - right
    assert top == size[1] - bottom
    if min(size) > 10:
        assert (right - left) / (bottom - top) == pytest.approx(aspect)


def test_light_wrap_colours_the_soft_edge_alone(
    clip: Callable[..., Path], tmp_path: Path, matter: Matter
) -> None:
    pictures = {}
    for wrap in (0.0, 1.0):
        output = tmp_path / f"{wrap}.mkv"
        options = EncodeOptions(codec="ffv1")
        process(clip(frames=1), output, background="red", light_wrap=wrap, matter=matter, encoding=options)
        pictures[wrap] = read(output).frames[0].to_ndarray(format="rgb24").astype(int)
    changed = abs(pictures[1.0] - pictures[0.0]).max(2) > 4
    assert 0 < changed.mean() < 0.3
    redder = (pictures[1.0] - pictures[0.0])[changed]
    assert redder[:, 0].mean() > redder[:, 1:].mean()


@pytest.mark.parametrize("wrap", [-0.1, 1.5, float("nan")])
def test_light_wrap_out_of_range_is_refused(wrap: float) -> None:
    with pytest.raises(BackgroundError, match="must be between 0 and 1"):
        open_background("red", light_wrap=wrap)

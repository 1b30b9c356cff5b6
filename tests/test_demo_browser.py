"""The demo in a real browser: Debian's Chromium, driven by Playwright, with a camera that is a file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from conftest import portrait
from demo_server import DemoServer

from demos import in_browser

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
pytestmark = pytest.mark.skipif(
    in_browser.chromium() is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)

# A busy machine with two cores takes its time.
PATIENCE_MS = 120_000
# Mean colour of a corner of a <video> and of where the person is, as 8-bit RGB.
LOOK = """(video) => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const pen = canvas.getContext('2d');
  pen.drawImage(video, 0, 0);
  const mean = (x, y) => {
    const side = Math.max(4, Math.round(canvas.width / 40));
    const data = pen.getImageData(x * (canvas.width - side), y * (canvas.height - side), side, side).data;
    return [0, 1, 2].map((c) => data.reduce((s, v, i) => (i % 4 === c ? s + v : s), 0) / (data.length / 4));
  };
  const frames = video.getVideoPlaybackQuality().totalVideoFrames;
  return { corner: mean(0.98, 0.02), middle: mean(0.45, 0.33), frames };
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[playwright.Browser]:
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    in_browser.write_camera(camera, width=320, height=240)
    with in_browser.browser(camera) as opened:
        yield opened


@pytest.fixture
def visit(browser: playwright.Browser, demo: DemoServer) -> Iterator[Callable[..., playwright.Page]]:
    """Opens the page as a new visitor; at the end: no error in the console, no request to elsewhere."""
    contexts, outside, complaints = [], [], []

    def open_page(**options: object) -> playwright.Page:
        context = browser.new_context(permissions=["camera"], accept_downloads=True, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        local = (demo.address, "blob:", "data:")
        page.on("request", lambda r: None if r.url.startswith(local) else outside.append(r.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(demo.address)
        page.wait_for_selector("#header h1")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert outside == []
    assert demo.outside == []
    assert complaints == []


def choose(page: playwright.Page, prefix: str, kind: str) -> None:
    page.locator(f"#{prefix}-kind").get_by_label(kind, exact=True).check()


def give_video(page: playwright.Page, path: Path) -> None:
    page.locator("#video-input input[type=file]").set_input_files(str(path))
    page.wait_for_selector("#video-input video")


def is_green(colour: list[float]) -> bool:
    return colour[1] > 120 and colour[0] < 70 and colour[2] < 130


def test_video_with_progress_plays_with_sound_and_can_be_saved(
    visit: Callable[..., playwright.Page], clip: Callable[..., Path], tmp_path: Path
) -> None:
    page = visit()
    give_video(page, clip(width=320, height=240, frames=150, audio="aac"))
    choose(page, "video", "Colour")
    page.click("#video-run")
    page.wait_for_selector("#video-status progress[value]")
    told = page.inner_text("#video-status")
    assert re.search(r"\d+ of 150 frames, [\d.]+ frames per second, \d+ s left", told), told
    page.wait_for_selector("#video-status .good")
    assert "Done: 150 frames" in page.inner_text("#video-status")
    video = page.wait_for_selector("#video-result video")
    video.evaluate("(v) => { v.muted = true; return v.play(); }")
    page.wait_for_function("() => document.querySelector('#video-result video').currentTime > 0.4")
    assert video.evaluate("(v) => v.webkitAudioDecodedByteCount") > 0
    seen = video.evaluate(LOOK)
    assert is_green(seen["corner"]), seen
    assert not is_green(seen["middle"]), seen
    assert page.locator("#video-pair img").count() == 2  # before and after
    page.click("#video-together")
    page.wait_for_function("() => !document.querySelector('#video-input video').paused")
    with page.expect_download() as download:
        page.locator("#video-result").get_by_label("Download").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    with av.open(str(saved)) as container:
        assert container.streams.audio
        assert sum(1 for _ in container.decode(video=0)) == 150


def test_cancel_leaves_nothing(
    visit: Callable[..., playwright.Page], clip: Callable[..., Path], demo: DemoServer
) -> None:
    page = visit()
    give_video(page, clip(width=320, height=240, frames=450))
    page.click("#video-run")
    page.wait_for_selector("#video-status progress[value]")
    before = len(demo.files)
    assert before >= 1  # the part file
    page.click("#video-cancel")
    page.wait_for_selector("#video-status >> text=Cancelled")
    playwright.expect(page.locator("#video-run")).to_be_enabled(timeout=PATIENCE_MS)
    playwright.expect(page.locator("#video-cancel")).to_be_disabled()
    deadline = time.monotonic() + 60
    while len(demo.files) >= before:
        assert time.monotonic() < deadline, demo.files
        time.sleep(0.2)
    assert not page.locator("#video-result").is_visible()
    # And the place is free for the next.
    give_again = clip(width=160, height=120)
    page.locator("#video-input").get_by_label("Clear").click()
    give_video(page, give_again)
    page.click("#video-run")
    page.wait_for_selector("#video-status .good")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no video at all", "is not a video this page can read. It takes MP4"), (b"", "bad.mp4")],
)
def test_bad_file_is_said(
    content: bytes, says: str, visit: Callable[..., playwright.Page], tmp_path: Path
) -> None:
    page = visit()
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(content)
    page.locator("#video-input input[type=file]").set_input_files(str(bad))
    page.wait_for_timeout(1500)  # the upload has no end that can be seen
    page.click("#video-run")
    page.wait_for_selector("#video-status .bad")
    assert says in page.inner_text("#video-status")
    playwright.expect(page.locator("#video-run")).to_be_enabled(timeout=PATIENCE_MS)


def test_too_large_and_other_kinds_are_said(visit: Callable[..., playwright.Page], tmp_path: Path) -> None:
    page = visit()
    for name, size, says in (("large.mp4", 3_000_000, "size"), ("notes.txt", 10, "type")):
        path = tmp_path / name
        path.write_bytes(bytes(size))
        page.locator("#video-input input[type=file]").set_input_files(str(path))
        page.wait_for_selector(f".toast-body >> text=/{says}/i")
        page.reload()
        page.wait_for_selector("#header h1")


def test_two_visitors_at_once(
    visit: Callable[..., playwright.Page], clip: Callable[..., Path], demo: DemoServer
) -> None:
    pages = [visit(), visit()]
    for page, label in zip(pages, ("Colour", "Blur"), strict=True):
        give_video(page, clip(width=160, height=120, frames=50))
        choose(page, "video", label)
    for page in pages:
        page.click("#video-run")
    sources = []
    for page in pages:
        page.wait_for_selector("#video-status .good")
        video = page.wait_for_selector("#video-result video")
        page.wait_for_function("() => document.querySelector('#video-result video').readyState >= 2")
        sources.append(video.get_attribute("src"))
        seen = video.evaluate(LOOK)
        assert is_green(seen["corner"]) == (page is pages[0])
    assert sources[0] != sources[1]
    assert pages[1].request.get(sources[0]).status == 200  # who knows the name...
    first = Path(sources[0].partition("/file=")[2])
    assert first.exists()
    pages[0].close()
    deadline = time.monotonic() + 60
    while first.exists():  # a request in the very moment in which it goes would be cut off
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert pages[1].request.get(sources[0]).status != 200  # ...finds nothing once its owner has gone
    assert pages[1].request.get(sources[1]).status == 200


def start_camera(page: playwright.Page) -> None:
    page.get_by_role("tab", name="Webcam").click()
    page.get_by_role("button", name="Start camera").click()
    page.wait_for_selector("#webcam .figures[data-fps]")


def wait_for_corner(page: playwright.Page, green: bool) -> dict:
    deadline = time.monotonic() + 60
    while True:
        seen = page.eval_on_selector("#webcam video.after", LOOK)
        if is_green(seen["corner"]) == green:
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.3)


def test_live_camera_comes_back_before_the_background_chosen_while_it_runs(
    visit: Callable[..., playwright.Page],
) -> None:
    page = visit()
    start_camera(page)
    choose(page, "webcam", "Colour")
    seen = wait_for_corner(page, green=True)
    assert not is_green(seen["middle"]), seen
    choose(page, "webcam", "Blur")
    first = wait_for_corner(page, green=False)
    page.wait_for_timeout(4000)
    second = page.eval_on_selector("#webcam video.after", LOOK)
    fps = (second["frames"] - first["frames"]) / 4
    assert fps > 1  # alive; benchmarks/bench_webcam.py measures
    told = page.inner_text("#webcam .figures")
    assert re.search(r"\d+ frames per second, \d+ ms behind, \d+ dropped", told), told
    shown = page.eval_on_selector("#webcam .figures", "(e) => Number(e.dataset.fps)")
    assert shown == pytest.approx(fps, rel=0.9, abs=10)
    page.get_by_role("button", name="Stop").click()
    assert page.inner_text("#webcam .figures") == ""
    start_camera(page)  # and once more
    page.get_by_role("button", name="Stop").click()


def test_no_more_cameras_than_places_and_a_closed_page_frees_one(
    visit: Callable[..., playwright.Page],
) -> None:
    pages = [visit() for _ in range(3)]
    for page in pages[:2]:
        start_camera(page)
    pages[2].get_by_role("tab", name="Webcam").click()
    pages[2].get_by_role("button", name="Start camera").click()
    pages[2].wait_for_selector("#webcam .message >> text=All 2 live places are taken")
    pages[0].close()
    deadline = time.monotonic() + 90
    while True:
        pages[2].get_by_role("button", name="Start camera").click()
        pages[2].wait_for_function(
            "() => document.querySelector('#webcam .figures[data-fps]')"
            " || document.querySelector('#webcam .message').textContent"
        )
        if not pages[2].inner_text("#webcam .message"):
            break
        assert time.monotonic() < deadline
        pages[2].wait_for_timeout(1000)


def test_photo_is_cut_out(visit: Callable[..., playwright.Page], tmp_path: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Photo").click()
    photo = tmp_path / "me.png"
    portrait(200, 240).save(photo)
    page.locator("#photo-input input[type=file]").set_input_files(str(photo))
    page.wait_for_selector("#photo-input img")
    page.click("#photo-run")
    page.wait_for_selector("#photo-pair img")
    assert "me-transparent.png" in page.inner_text("#photo-file").replace("\n", "")


def test_an_upload_never_used_goes_with_its_page(
    visit: Callable[..., playwright.Page], clip: Callable[..., Path], demo: DemoServer, tmp_path: Path
) -> None:
    page, before = visit(), set(demo.kept)
    photo = tmp_path / "never.png"
    portrait(90, 70).save(photo)
    give_video(page, clip(width=192, height=112))
    with page.expect_response(re.compile("/run/")):
        page.get_by_role("tab", name="Photo").click()
        page.locator("#photo-input input[type=file]").set_input_files(str(photo))
        page.wait_for_selector("#photo-input img")
    mine = set(demo.kept) - before
    assert {path.suffix for path in mine} == {".mp4", ".png"}
    page.close()
    deadline = time.monotonic() + 60
    while mine & set(demo.kept):
        assert time.monotonic() < deadline, mine
        time.sleep(0.2)


def test_how_it_works_shows_pictures_and_times(visit: Callable[..., playwright.Page]) -> None:
    page = visit()
    page.get_by_role("tab", name="How it works").click()
    page.click("#explain-run")
    page.wait_for_selector("#explain-timing .timing")
    for index in range(5):
        page.wait_for_selector(f"#explain-picture-{index} img")
    assert len(re.findall(r"[\d.]+ ms\b", page.inner_text("#explain-timing .timing"))) == 3


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_fits_its_width_and_is_reached_by_keyboard(
    width: int, scheme: str, visit: Callable[..., playwright.Page]
) -> None:
    page = visit(viewport={"width": width, "height": 850}, color_scheme=scheme)
    for tab, target in (
        ("Video", "video-run"),
        ("Webcam", ""),
        ("Photo", "photo-run"),
        ("How it works", "explain-run"),
    ):
        page.get_by_role("tab", name=tab).focus()
        page.keyboard.press("Enter")
        playwright.expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wanted, reached = target or "start", [""]
        while wanted not in reached[-1].split():
            assert len(reached) <= 60, (tab, reached)
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("document.activeElement.id + ' ' + document.activeElement.className")
            )

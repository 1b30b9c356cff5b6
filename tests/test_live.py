"""A live run from source to sink: its contract, its sound, and places that are not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import read
from live_runs import CAMERA, SECONDS, run

from banet_stream import Matter
from banet_stream.contract import NEWER
from banet_stream.errors import InputError, OutputError, UsageError
from banet_stream.live import LiveOptions
from banet_stream.live_source import LiveFrame
from banet_stream.publish import PublishOptions

Clip = Callable[..., Path]


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_camera_to_a_file(stub: Callable[..., Matter], tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    summary = run(CAMERA, output, stub())
    whole = summary.contract.whole
    after = read(output)
    assert whole.shown >= 5
    # A machine that stalls for a second or two shows the slate meanwhile.
    assert whole.shown + sum(whole.fillers.values()) == len(after.frames)
    assert whole.captured - whole.shown - sum(whole.dropped.values()) in (0, 1, 2)  # on their way at the end
    assert all(b > a for a, b in zip(after.pts_seconds, after.pts_seconds[1:], strict=False))
    assert after.pts_seconds[-1] - after.pts_seconds[0] < SECONDS + 10  # and what opening the sink took
    assert 0 < whole.latency_ms(0.5) <= whole.latency_ms(0.99) < 10_000
    assert not summary.broken_off
    assert summary.encoder == "libx264"
    picture = after.frames[-1].to_ndarray(format="rgb24")
    assert np.abs(picture.reshape(-1, 3).mean(0) - (0, 128, 0)).max() < 12


def test_slower_than_real_time_drops_frames_and_does_not_lag(
    stub: Callable[..., Matter], tmp_path: Path
) -> None:
    def slow(_: int) -> None:
        time.sleep(0.15)

    publish = PublishOptions(deadline_seconds=30)
    summary = run(CAMERA, tmp_path / "o.mkv", stub(slow), duration_seconds=4.0, publish=publish)
    whole = summary.contract.whole
    assert whole.dropped[NEWER] > whole.shown  # 25 fps in, less than 7 out
    # Without dropping, the last of these frames would be 3 s late.
    assert whole.latency_ms(0.95) < 1500


def test_never_drop(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    def slow(_: int) -> None:
        time.sleep(0.05)

    publish = PublishOptions(deadline_seconds=30)
    summary = run(
        str(clip(frames=30)), tmp_path / "o.mkv", stub(slow), realtime=True, drop="never",
        duration_seconds=60.0, publish=publish,
    )  # fmt: skip
    assert summary.contract.whole.captured == 30
    assert summary.contract.whole.dropped[NEWER] == 0


def test_a_recording_keeps_its_pace_and_ends(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    began = time.monotonic()
    summary = run(
        str(clip(frames=30, audio="aac")), tmp_path / "o.mp4", stub(), realtime=True, duration_seconds=60
    )
    assert 1.1 < time.monotonic() - began < 30  # 30 frames at 25 fps
    assert summary.contract.whole.captured == 30


def test_sound_passes_in_step(stub: Callable[..., Matter], clip: Clip, tmp_path: Path) -> None:
    source, output = clip(frames=50, audio="aac"), tmp_path / "o.mp4"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    before, after = read(source), read(output)
    lost = before.audio_packets.index(after.audio_packets[0])  # before the first picture
    assert after.audio_packets == before.audio_packets[lost : lost + len(after.audio_packets)]  # copied
    assert len(after.audio_packets) >= len(before.audio_packets) - 8
    # The same distance between sound and picture as before.
    shift = after.audio_seconds[0] - before.audio_seconds[lost]
    pictures = {round(t + shift, 2) for t in before.pts_seconds}
    assert sum(round(t, 2) in pictures or round(t + 0.01, 2) in pictures or round(t - 0.01, 2) in pictures
               for t in after.pts_seconds) >= len(after.pts_seconds) - 1  # fmt: skip


def test_sound_is_encoded_anew_where_it_can_not_be_copied(
    stub: Callable[..., Matter], clip: Clip, tmp_path: Path
) -> None:
    source = clip(frames=50, audio="libopus", suffix=".mkv")
    output = tmp_path / "o.ts"
    run(str(source), output, stub(), realtime=True, duration_seconds=60)
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = list(container.decode(audio=0))
    seconds = sum(f.samples / f.sample_rate for f in heard)
    assert 1.5 < seconds < 2.3
    assert max(np.abs(f.to_ndarray()).max() for f in heard) > 0.05  # a tone, not silence
    steps = np.diff([f.time for f in heard])[2:]  # after the encoder's and the decoder's priming
    assert steps == pytest.approx(np.full(len(steps), 1024 / 48000), abs=2e-3)


def test_the_preview_alone_needs_no_output(stub: Callable[..., Matter]) -> None:
    seen: list[LiveFrame] = []
    summary = run(CAMERA, None, stub(), watch=seen.append)
    assert len(seen) == summary.contract.whole.shown >= 5


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match=r"drop must be one of oldest, never, got 'newest'"):
        LiveOptions(drop="newest")


def test_a_source_that_is_not_there_ends_at_once(stub: Callable[..., Matter], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        run(str(tmp_path / "none.mp4"), tmp_path / "o.mp4", stub(), realtime=True)
    with pytest.raises(InputError, match=r"Connection refused"):
        run("rtsp://user:hunter2@127.0.0.1:1/x", tmp_path / "o.mp4", stub())
    with pytest.raises(InputError, match=r"has no SRT; use rtsp://"):
        run("srt://127.0.0.1:1", tmp_path / "o.mp4", stub())
    assert not list(tmp_path.iterdir())


def test_a_sink_that_is_not_there_ends_at_once(stub: Callable[..., Matter]) -> None:
    for url, why in (
        ("rtsp://user:hunter2@127.0.0.1:1/x", "Connection refused"),
        ("rtmp://127.0.0.1:1/app/hunter2", "Connection refused"),
        ("srt://127.0.0.1:1", "Protocol not found"),
    ):
        with pytest.raises(OutputError, match=why) as caught:
            run(CAMERA, url, stub(), duration_seconds=30)
        assert "hunter2" not in str(caught.value)

"""Which encoder is used; a software one stands in for hardware that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import read
from test_background import blank

from banet_stream import EncodeOptions, Matter, OutputError, cli, doctor, hardware, process
from banet_stream.codecs import CODECS, Codec
from banet_stream.encoder import encoder_options
from banet_stream.frame import PIXEL_FORMATS
from banet_stream.hardware import choose_encoder

Clip = Callable[..., Path]
WORKS = Codec("mpeg4", 3, {}, worst_crf=31, quality="qmax")
ABSENT = Codec("h264_of_the_future", 19)


def choose(*candidates: Codec, wanted: str = "auto", layout: str = "yuv420p") -> str:
    hardware.HARDWARE["h264"] = candidates
    options = EncodeOptions(encoder=wanted)
    return choose_encoder("h264", CODECS["h264"], PIXEL_FORMATS[layout], (64, 48), options).encoder


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "HARDWARE", dict(hardware.HARDWARE))


def test_hardware_that_works_is_used() -> None:
    assert choose(WORKS) == "mpeg4"
    assert choose(ABSENT, WORKS) == "mpeg4"
    assert choose(WORKS, wanted="hardware") == "mpeg4"
    assert choose(WORKS, wanted="software") == "libx264"


def test_hardware_that_is_not_there_is_not() -> None:
    assert choose(ABSENT) == "libx264"
    assert choose() == "libx264"
    with pytest.raises(OutputError, match=r"no such encoder for h264 works here \(h264_of_the_future: "):
        choose(ABSENT, wanted="hardware")
    with pytest.raises(OutputError, match="must be one of auto, software, hardware"):
        choose(wanted="quick")


def test_hardware_that_would_lose_bits_is_not_used() -> None:
    assert choose(WORKS, layout="yuv420p10le") == "libx264"
    with pytest.raises(OutputError, match="mpeg4: does not take yuv444p"):
        choose(WORKS, wanted="hardware", layout="yuv444p")


def test_hardware_that_fails_on_a_frame_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver, or too many sessions."""
    monkeypatch.setattr(hardware, "probe", lambda *_: "no capable devices found")
    assert choose(WORKS) == "libx264"
    with pytest.raises(OutputError, match="no capable devices found"):
        choose(WORKS, wanted="hardware")


@pytest.mark.parametrize(("crf", "told"), [(0, "1"), (1, "1"), (30, "30"), (None, None)])
def test_nvenc_is_told_a_quality_that_is_not_its_word_for_none(crf: int | None, told: str | None) -> None:
    first = blank(64, 48, "yuv420p")
    for candidates in hardware.HARDWARE.values():
        for codec in candidates:
            options = encoder_options(codec, EncodeOptions(crf=crf), first)
            assert options["cq"] == (told or str(codec.crf))
            assert "cq" not in encoder_options(codec, EncodeOptions(bit_rate=1_000_000), first)
    assert encoder_options(CODECS["h264"], EncodeOptions(crf=0), first)["crf"] == "0"


def test_the_probe_encodes_a_frame() -> None:
    assert hardware.probe("libx264", "yuv420p", (64, 48)) == ""
    assert hardware.probe("libx264", "yuv420p", (33, 17)) == ""  # what the output pads, so does the probe
    assert hardware.probe("libx264", "rgb24", (64, 48))


def test_what_runs_is_said(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hardware.HARDWARE["h264"] = (WORKS,)
    output = tmp_path / "o.mp4"
    summary = process(clip(), output, background="green", matter=Matter(device="cpu", size=64))
    assert summary.encoder == "mpeg4"
    assert read(output).codec == "mpeg4"
    cli.main(
        [str(clip()), "-o", str(output), "--overwrite", "--stats", "--encoder", "software", "--size", "64"]
    )
    assert "encoder: libx264" in capsys.readouterr().out
    assert read(output).codec == "h264"
    hardware.HARDWARE["h264"] = (ABSENT,)
    assert "h264_of_the_future (not here: " in hardware.describe()
    assert doctor.main(["--device", "cpu"]) == 0
    assert "h264_of_the_future (not here: " in capsys.readouterr().out

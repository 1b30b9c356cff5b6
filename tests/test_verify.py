"""``--verify``: kept promises are found kept, and every kind of broken one broken."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from banet_stream import Matter, OutputError, cli, process
from banet_stream.decode import Source
from banet_stream.verify import MOST_SAMPLES, CoreSamples, Verification, core_of, verify

Clip = Callable[..., Path]


@pytest.mark.parametrize(
    ("spec", "suffix"),
    [
        ({"audio": "aac"}, ".mp4"),
        ({"audio": "aac", "pts": (500, 540, 580, 700, 710, 900, 1500, 1533, 1566, 1600, 1700, 2500)}, ".mkv"),
        ({"audio": "aac"}, ".webm"),  # its sound is re-encoded
        ({"width": 97, "height": 131, "codec": "ffv1", "suffix": ".mkv"}, ".mp4"),
        ({"pixel_format": "yuv444p10le", "space": 9, "range": 2, "aspect": Fraction(4, 3)}, ".mov"),
        ({"width": 128, "height": 96, "rotation": 90, "rate": Fraction(24000, 1001)}, ".mp4"),
    ],
)
def test_promises_are_kept(
    clip: Clip, matter: Matter, tmp_path: Path, spec: dict[str, object], suffix: str
) -> None:
    summary = process(clip(**spec), tmp_path / f"o{suffix}", background="green", matter=matter, verify=True)
    found = summary.verification
    assert found is not None
    assert not found.broken
    values = {f.name: f.output for f in found.findings}
    assert values["frames"] == 12
    assert values["PSNR of the subject's core in dB, luma"] > 35
    assert ("sound 1, copied" in values) == ("audio" in spec and suffix != ".webm")
    assert ("sound 1, re-encoded" in values) == (suffix == ".webm")


def test_a_part_without_sound(clip: Clip, matter: Matter, tmp_path: Path) -> None:
    summary = process(
        clip(frames=50, audio="aac"),
        tmp_path / "o.mov",
        background="transparent",
        matter=matter,
        audio=False,
        start_seconds=0.4,
        duration_seconds=0.8,
        verify=True,
    )
    assert summary.verification is not None
    assert not summary.verification.broken
    assert summary.verification.findings[0].source == 20


def compare(source: Path, output: Path, *, usual_quality: bool = True) -> Verification:
    samples = CoreSamples()
    for _ in range(12):
        samples.watch(None, torch.ones(32, 32))
    with closing(Source(source)) as opened:
        return verify(opened, output, samples, usual_quality=usual_quality)


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"frames": 11}, {"frames"}),
        ({"pts": (*tuple(range(0, 440, 40)), 441)}, {"largest difference of timestamps in ms"}),
        ({"space": 1}, {"matrix (H.273)"}),
        ({"range": 2}, {"full range"}),
        ({"aspect": Fraction(4, 3)}, {"sample aspect ratio"}),
        ({"audio": None}, {"tracks of sound"}),
        ({"bars": True}, {f"PSNR of the subject's core in dB, {kind}" for kind in ("luma", "chroma")}),
        ({"rotation": 180}, {"rotation"}),
    ],
)
def test_every_broken_promise_is_found(clip: Clip, changed: dict[str, object], broken: set[str]) -> None:
    whole = {"audio": "aac", "space": 6, "range": 1}
    source = clip(**whole)
    assert not compare(source, clip(**whole, index_first=True)).broken
    found = compare(source, clip(**whole | changed))
    names = {f.name for f in found.broken}
    assert broken <= names
    # A matrix or range that is not the samples' own shows in the picture too.
    assert not {n for n in names - broken if not n.startswith("PSNR") and "sound" not in n}


def test_another_sound_is_found(clip: Clip) -> None:
    source = clip(audio="aac", frames=12)
    output = clip(audio="aac", frames=12, rate=Fraction(24))
    assert any(f.name == "sound 1, copied" for f in compare(source, output).broken)


def test_a_bad_picture_is_allowed_to_who_asked_for_it(clip: Clip) -> None:
    assert not compare(clip(), clip(bars=True), usual_quality=False).broken


def test_samples_are_few_and_spread() -> None:
    samples = CoreSamples()
    for _ in range(1000):
        samples.watch(None, torch.ones(8, 8))
    numbers = sorted(samples.cores)
    assert MOST_SAMPLES / 2 <= len(numbers) <= MOST_SAMPLES
    assert {b - a for a, b in itertools.pairwise(numbers)} == {64}


def test_the_core_keeps_off_the_edge() -> None:
    alpha = torch.zeros(20, 20)
    alpha[5:15, 5:15] = 1
    assert core_of(alpha).nonzero().tolist() == [[y, x] for y in range(7, 13) for x in range(7, 13)]


def test_the_command(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(clip(audio="aac")), "-o", str(tmp_path / "o.mp4"), "--size", "256", "--device", "cpu"]
    cli.main([*words, "--verify"])
    assert "kept    frames: 12 (source: 12)" in capsys.readouterr().out
    cli.main([*words, "--verify", "--json", "--overwrite"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["verified"] is True
    assert facts["encoder"] == "libx264"
    assert {"name": "frames", "kept": True, "source": 12, "output": 12} in facts["findings"]
    cli.main([*words, "--json", "--overwrite", "-q"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["verified"] is None
    assert facts["findings"] == []
    # A promise that can't be kept stands for a broken one.
    monkeypatch.setattr("banet_stream.verify.LEAST_PSNR", 100.0)
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--verify", "--json", "--overwrite"])
    assert caught.value.code == 10
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verified"] is False
    assert "is there, but not as promised: PSNR" in captured.err
    assert (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("output", ["%d.png", "-"])
def test_what_can_not_be_read_again(clip: Clip, tmp_path: Path, output: str) -> None:
    with pytest.raises(OutputError, match="is no video file"):
        process(clip(), output if output == "-" else tmp_path / output, verify=True)
    assert not list(tmp_path.iterdir())

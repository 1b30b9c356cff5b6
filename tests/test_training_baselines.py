"""The comparison's networks and the commands that make the paper's tables, at tiny budgets."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from banet_stream.errors import InputError, UsageError, WeightsError
from banet_stream.network import BANet
from training import ablate, checkpoint, compare, evaluate, networks, sets, train
from training.baselines import edanet
from training.baselines.common import PlainOutput
from training.baselines.pfcn import PFCN

pytestmark = pytest.mark.usefixtures("one_thread")
FIELDS = {"network": "banet", "channels": 64, "detail_stride": 2, "temperature": 4.0, "context": 0}
# Table 2, millions.
PAPER = {"banet": 0.62, "enet": 0.35, "bisenet": 27.01, "edanet": 0.68, "unet": 13.40, "pfcn": 134.27}


def on_paper(name):
    """Without memory or time."""
    with torch.device("meta"):
        return networks.build(FIELDS | {"network": name})


@pytest.mark.parametrize("name", PAPER)
def test_parameters_are_near_the_papers(name):
    assert networks.parameters(on_paper(name)) / 1e6 == pytest.approx(PAPER[name], rel=0.03)


def test_banet_without_attention_is_smaller_by_what_attention_needs():
    difference = networks.parameters(on_paper("banet")) - networks.parameters(on_paper("banet-plain"))
    assert difference == (64 + 1) + 16 * 25  # the projection; one channel of the detail branch's 5 x 5


def test_every_network_of_the_comparison_has_a_name():
    assert set(networks.NAMES) == {*PAPER, "banet-plain"}
    names = [entry.changes.get("network", "banet") for entry in (*compare.ENTRIES, *ablate.ENTRIES)]
    assert set(names) == set(networks.NAMES)


@pytest.mark.parametrize("name", [n for n in networks.NAMES if n not in ("banet", "pfcn")])
def test_baselines_learn_on_any_size(name):
    """Sides that are no multiples of 32; a few steps on one picture with a plain answer."""
    torch.manual_seed(1)
    model = networks.build(FIELDS | {"network": name})
    image = torch.randn(2, 3, 70, 99)
    matte = torch.zeros(2, 1, 70, 99)
    matte[..., 40:] = 1
    image[..., 40:] += 2
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for _ in range(6):
        output = model(image)
        assert isinstance(output, PlainOutput)
        assert output.alpha.shape == matte.shape
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output.alpha, matte)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert min(found[-3:]) < 0.9 * found[0]


@pytest.mark.parametrize("dilation", [1, 2, 16])
def test_edanets_kernels_get_gradients_in_bfloat16_too(dilation):
    """PyTorch's own are wrong on some CPUs, of a dilated convolution of this size."""
    torch.manual_seed(2)
    image, wanted = torch.randn(8, 40, 56, 40), torch.randn(8, 40, 56, 40)
    for convolution in edanet.asymmetric(dilation)[:2]:
        convolution.to(memory_format=torch.channels_last)
        gradients = []
        for mixed in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                found = convolution(image.to(memory_format=torch.channels_last))
            gradients += torch.autograd.grad(found, convolution.weight, wanted.to(found.dtype))
        exact, rounded = gradients
        assert (rounded - exact).abs().max() < 0.03 * exact.abs().max()


def test_pfcn_sees_place_and_the_mean_mask():
    """134 M parameters are not run here; their shapes are, and what is put before them."""
    model = on_paper("pfcn")
    assert model(torch.empty(1, 3, 70, 99, device="meta")).alpha.shape == (1, 1, 70, 99)
    model.mean_mask = torch.zeros(1, 1, 64, 64)
    model.learn_shape([np.full((30, 20), 255, np.uint8), np.zeros((50, 60), np.uint8)])
    assert model.mean_mask.unique().tolist() == [0.5]
    top = np.zeros((64, 64), np.uint8)
    top[:32] = 255
    model.learn_shape([top])
    x, y, shape = model.shape_and_place(torch.zeros(2, 3, 64, 64))[1]
    assert (x[0, 0], x[5, -1], y[0, 3], y[-1, 0]) == (-1, 1, -1, 1)
    np.testing.assert_array_equal(shape[:32], 1)
    np.testing.assert_array_equal(shape[32:], 0)


def test_mean_mask_is_learnt_from_the_sets_that_are_drawn(root):
    config = train.Config(data=str(root), sets={"portraits-train": 0.5, "backgrounds": 0.5})
    samples, _ = train.open_data(config, range(1), train.World())
    with torch.device("meta"):
        model = PFCN()
    model.mean_mask = torch.zeros(1, 1, 64, 64)
    train.learn_shape([model], samples)
    masks = [pair.decode().matte for pair in sets.read(root / "portraits-train.tar")]
    wanted = np.mean([mask.mean() / 255 for mask in masks])
    assert model.mean_mask.mean().item() == pytest.approx(wanted, abs=0.01)


def test_dropout_does_not_spoil_resuming(root, tmp_path):
    values = {"data": str(root), "network": "enet", "iterations": 4, "batch": 2, "workers": 0}
    values |= {"size_start": 64, "size_end": 64, "sets": {"portraits-train": 1.0}}
    for out, limits in (("whole", (0.0,)), ("parts", (1e-9, 1e-9, 0.0))):
        for limit in limits:
            train.train(train.Config(**values, out=str(tmp_path / out), limit_minutes=limit))
    a, b = (checkpoint.load(tmp_path / out / "checkpoint.pt")["model"] for out in ("whole", "parts"))
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_baseline_can_be_evaluated_and_not_shipped(root, tmp_path):
    values = {"data": str(root), "out": str(tmp_path), "network": "edanet", "iterations": 2, "batch": 2}
    values |= {"size_start": 64, "size_end": 64, "workers": 0, "sets": {"portraits-train": 1.0}}
    train.train(train.Config(**values))
    path = tmp_path / "checkpoint.pt"
    predict = evaluate.predictor(str(path), size=96, precision="float32", device="cpu", product=False)
    scores, _ = evaluate.score(predict, sets.read(root / "portraits-val.tar"))
    assert len(scores) == 3
    with pytest.raises(UsageError, match="holds the baseline edanet"):
        checkpoint.write_weights(tmp_path / "x.safetensors", checkpoint.load(path))
    state = checkpoint.load(path)
    state["config"]["network"] = "unet"
    torch.save(state, path)
    with pytest.raises(WeightsError, match="does not hold the weights it should"):
        checkpoint.network(path)


SMALL = ["--iterations", "2", "--batch", "2", "--size", "64", "--workers", "0", "--speed-runs", "1"]
SMALL += ["--first-sets", '{"studio-train": 1}']


def test_ablation_command_gives_the_papers_table(root, tmp_path, capsys):
    words = [*SMALL, "--data", str(root), "--out", str(tmp_path)]
    ablate.main(words)
    text = (tmp_path / "ablate.md").read_text()
    assert text.startswith(
        "2 iterations in each of two stages, batches of 2, crops of 64^2 pixels, SGD to 0.1"
    )
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| base", "| +"))]
    assert [row[0].strip("| ") for row in rows] == ["base", "+ boundary attention", "+ refine loss"]
    assert [row[4] for row in rows] == ["94.9", "95.2", "95.8"]
    assert not (tmp_path / "base" / "1" / "log.jsonl").exists()  # measured once, at the end
    configs = {}
    for name in ("base", "attention", "refine"):
        for stage in (1, 2):
            configs[name, stage] = checkpoint.load(tmp_path / name / str(stage) / "checkpoint.pt")["config"]
    assert [c["refine_weight"] for c in configs.values()] == [0, 0, 0, 0, 0, 0.1]
    for stage, sets_drawn in ((1, {"studio-train": 1}), (2, {"portraits-train": 1})):
        budgets = []
        for name in ("base", "attention", "refine"):
            c = configs[name, stage]
            assert c["sets"] == sets_drawn
            budgets.append(
                [c[k] for k in ("iterations", "batch", "size_end", "max_rate", "seed", "optimiser")]
            )
        assert budgets[0] == budgets[1] == budgets[2]
    facts = json.loads((tmp_path / "ablate.json").read_text())
    assert all(0 < row["miou"] < 100 and row["fps"] > 0 for row in facts)
    capsys.readouterr()
    ablate.main(words)  # goes on where it stopped: at the end
    assert capsys.readouterr().out.count("finished already") == 6


def test_comparison_command_measures_what_it_is_told(root, tmp_path, capsys):
    for rows in ("banet64", "edanet"):  # what was measured before stays, in the paper's order
        compare.main([*SMALL, "--data", str(root), "--out", str(tmp_path), "--only", rows])
    text = (tmp_path / "compare.md").read_text()
    found = re.findall(
        r"^\| (\S+) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \| (\d+) \|", text, re.MULTILINE
    )
    assert found == [("EDANet", "0.68", "94.9", "71"), ("BANet-64", "0.61", "95.8", "43")]
    other = [*SMALL, "--iterations", "3", "--data", str(root), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        compare.main([*other, "--only", "enet"])
    assert caught.value.code == UsageError.exit_code
    assert not (tmp_path / "enet").exists()
    assert "its table says: 2 iterations in each" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        compare.main([*SMALL, "--only", "deeplab"])
    assert caught.value.code == UsageError.exit_code
    (tmp_path / "compare.json").write_text("[3]")
    with pytest.raises(SystemExit) as caught:
        compare.main([*SMALL, "--data", str(root), "--out", str(tmp_path), "--only", "edanet"])
    assert caught.value.code == InputError.exit_code
    assert "compare.json: holds no rows of a table" in capsys.readouterr().err


def test_papers_budget_is_the_default():
    (first, second) = ablate.study.stages(ablate.ENTRIES[2], ablate.parse([]))
    assert (first.iterations, second.iterations, second.batch, second.size_end) == (40_000, 40_000, 16, 512)
    assert isinstance(networks.build(vars(second)), BANet)

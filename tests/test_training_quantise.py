"""The graph in 8 bits: made by the command, found by the product, removed with its weights."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import openvino
import pytest

from banet_stream import Matter
from banet_stream.engines import WEIGHTS, load_network
from banet_stream.errors import UsageError
from training import export, quantise, train


def command(root, model, *more):
    sets = json.dumps({"portraits-train": 1.0})
    quantise.main(["--model", str(model), "--data", str(root), "--samples", "4", "--sets", sets, *more])


def test_command_makes_what_the_product_runs(root, tmp_path, capsys):
    weights = shutil.copy(WEIGHTS / "banet64.safetensors", tmp_path / "mine.safetensors")
    command(root, weights)
    assert Matter(str(weights), device="cpu").engine.precision == "int8"
    card = (tmp_path / "mine-int8.md").read_text()
    assert card in capsys.readouterr().out
    found = re.findall(r"\| (float32|int8) \| (\d+) \| ([\d.]+) \|", card)
    assert [(p, int(s)) for p, s, _ in found] == [(p, s) for p in ("float32", "int8") for s in quantise.SIDES]
    graph = openvino.Core().read_model(tmp_path / "mine-int8.xml")
    kernels = [op for op in graph.get_ops() if op.get_type_name() == "Constant" and op.shape[-2:] == [3, 3]]
    values = np.concatenate([op.data.ravel() for op in kernels if op.data.dtype == np.int8])
    assert values.size > 100_000
    assert abs(values.astype(int)).max() <= 64  # 7 bits: sums of two products hold 16


def test_export_removes_the_graph_of_earlier_weights(root, tmp_path):
    values = {"data": str(root), "out": str(tmp_path), "iterations": 1, "batch": 2, "workers": 0}
    values |= {
        "size_start": 64,
        "size_end": 64,
        "sets": {"portraits-train": 1.0},
        "init": "banet64",
        "context": 2,
    }
    train.train(train.Config(**values))
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for source in WEIGHTS.glob("banet64*"):
        shutil.copy(source, shipped)
    export.export(tmp_path / "checkpoint.pt", name="banet64", root=root, folder=shipped)
    assert sorted(p.name for p in shipped.iterdir()) == ["banet64.md", "banet64.safetensors"]


def test_without_nncf_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'banet-stream\[train\]'"):
        quantise.quantise(load_network("banet64"), [])


def test_no_samples_are_refused(root, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(root, "banet64", "--samples", "0")
    assert stopped.value.code == UsageError.exit_code
    assert "--samples 0: must be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("sets", ["portraits-train", "[1]", '{"portraits-train": "much"}'])
def test_sets_that_are_no_weights_are_refused(sets, capsys):
    with pytest.raises(SystemExit) as stopped:
        quantise.main(["--sets", sets])
    assert stopped.value.code == UsageError.exit_code
    assert 'must be JSON like {"portraits-train": 1.0}' in capsys.readouterr().err

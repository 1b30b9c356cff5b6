"""What becomes of a run: evaluating, averaging, exporting, its card, graphs for other runtimes."""

from __future__ import annotations

import json
import re
import shlex

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_runs import REAL_VALIDATION, REPOSITORY, configure, lines
from training_sets import TRAINED, person

from banet_stream import Matter
from banet_stream.engines import WEIGHTS, load_network
from banet_stream.errors import InputError, OutputError, UsageError, WeightsError
from training import (
    ablate,
    average,
    card,
    checkpoint,
    compare,
    composites,
    evaluate,
    export,
    graphs,
    pseudo,
    quantise,
    sets,
    soften,
    train,
)

pytestmark = pytest.mark.usefixtures("one_thread")
NUMBERS = {"boundary_iou": 0.5, "mad": 0.1, "mse": 0.1}


def test_train_and_evaluate_agree(root, whole):
    """The run's own log, the command on its checkpoint, and a plain loop over the network."""
    pairs = sets.read_tar(root / "portraits-val.tar")
    path = str(whole / "checkpoint.pt")
    predict = evaluate.predictor(path, size=320, precision="float32", device="cpu", product=False)
    numbers = evaluate.summary(*evaluate.score(predict, pairs))
    logged = lines(whole)[-1]
    assert numbers["miou"] == pytest.approx(logged["miou"], abs=0.01)
    assert numbers["miou_per_picture"] == pytest.approx(logged["miou_per_picture"], abs=0.01)


def test_product_is_what_matter_computes(whole, tmp_path):
    weights = tmp_path / "w.safetensors"
    checkpoint.write_weights(weights, checkpoint.load(whole / "checkpoint.pt"))
    rgb, _ = person(7)
    wanted = Matter(str(weights), device="cpu", precision="float32", size=128).alpha(rgb)
    for model in (weights, whole / "checkpoint.pt"):
        predict = evaluate.predictor(str(model), size=128, precision="float32", device="cpu", product=True)
        np.testing.assert_array_equal(predict(rgb), wanted)


def test_evaluate_command_writes_report_and_sheet(root, whole, tmp_path, capsys):
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    words = ["--model", str(whole / "checkpoint.pt"), "--data", str(root / "portraits-val.tar")]
    evaluate.main([*words, "--size", "96", "--json", str(report), "--sheet", str(sheet)])
    facts = json.loads(report.read_text())
    assert facts["miou"] == pytest.approx(
        float(capsys.readouterr().out.split("miou ")[1].split()[0]), abs=1e-4
    )
    assert len(facts["pictures"]) == 3
    for name in ("boundary_iou", "mad", "mse", "sad", "grad", "conn", "mad_band"):
        assert facts[name] == pytest.approx(np.mean([p[name] for p in facts["pictures"]]))
    picture = cv2.imread(str(sheet))
    assert picture.shape == (220, 3 * 3 * 150, 3)  # 72 x 96 shown 200 high
    with pytest.raises(SystemExit) as caught:
        evaluate.main([*words, "--product", "--size", "8"])
    assert caught.value.code == UsageError.exit_code
    with pytest.raises(SystemExit) as caught:
        evaluate.main([*words, "--json", str(tmp_path)])
    assert caught.value.code == OutputError.exit_code


def test_worst_come_first():
    scores = [evaluate.Score(str(i), {"miou": miou}) for i, miou in enumerate((90.0, 50.0, 70.0))]
    assert [s.miou for s in evaluate.worst(scores, 2)] == [50, 70]


def test_export_round_trip(root, whole, tmp_path):
    weights = export.export(whole / "checkpoint.pt", name="tiny", root=root, folder=tmp_path)
    state = checkpoint.load(whole / "checkpoint.pt")
    found = load_network(str(weights)).state_dict()
    assert found.keys() == state["ema"].keys()
    assert all(torch.equal(found[k], v) for k, v in state["ema"].items())
    with safe_open(weights, "pt") as file:
        facts = file.metadata()
    assert facts | {"sets": ""} == {
        "channels": "64",
        "detail_stride": "2",
        "temperature": "4.0",
        "context": "0",
        "iteration": "8",
        "sets": "",
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.md", "tiny.safetensors"]


def test_half_as_large_weights_are_what_the_rounded_network_computes(root, whole, tmp_path):
    weights = export.export(whole / "checkpoint.pt", name="half", root=root, folder=tmp_path, half=True)
    assert weights.stat().st_size < 0.6 * 4 * 612_130
    state = checkpoint.load(whole / "checkpoint.pt")["ema"]
    for name, value in load_network(str(weights)).state_dict().items():
        rounded = state[name].half().float() if value.ndim > 1 else state[name]
        assert torch.equal(value, rounded)
    assert "kernels float16, the rest float32" in (tmp_path / "half.md").read_text()
    assert "--name half --half" in (tmp_path / "half.md").read_text()
    with pytest.raises(WeightsError, match="does not compute"):
        export.refuse_difference(whole / "checkpoint.pt", weights)


def test_card_names_sets_rights_recipe_and_measurements(root, whole, tmp_path):
    export.export(whole / "checkpoint.pt", name="tiny", root=root, folder=tmp_path)
    text = (tmp_path / "tiny.md").read_text()
    for words in (*TRAINED, "80 %", "612,130 parameters", "8 of 8", "| the network alone | 320 |", "eq. (1)"):
        assert words in text
    assert "research data" in text
    assert "RobustVideoMatting" not in text  # none of these sets has its labels
    command = next(line for line in text.splitlines() if line.startswith("python -m training.evaluate"))
    options = evaluate.parse(command.split()[3:])
    assert (options.model, options.size, options.product) == ("tiny", 320, False)


def test_card_of_the_shipped_recipe_describes_every_set(whole):
    state = checkpoint.load(whole / "checkpoint.pt")
    state["config"]["sets"] = train.Config().sets | {"portraits-blend-matted": 0.2}
    measured = card.Measurement(320, False, 3, dict.fromkeys(("miou", "miou_per_picture"), 1.0) | NUMBERS)
    text = card.text("banet64", state, [measured])
    assert all(f"| {name} |" in text for name in train.Config().sets)
    assert "not described" not in text
    assert "`video-frames` and `fashion-soft` are pseudo-labels: output of RobustVideoMatting" in text
    assert "`portraits-blend-matted` are pseudo-labels: output of MediaPipe" in text


def test_export_refuses_before_it_writes(root, whole, tmp_path):
    with pytest.raises(UsageError, match="--name"):
        export.export(whole / "checkpoint.pt", name="../x", root=root, folder=tmp_path)
    with pytest.raises(InputError, match=r"portraits-val\.tar"):
        export.export(whole / "checkpoint.pt", name="x", root=tmp_path, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_that_compute_something_else_are_refused(whole, tmp_path):
    state = checkpoint.load(whole / "checkpoint.pt")
    state["ema"]["head.bias"] = state["ema"]["head.bias"] + 1
    checkpoint.write_weights(tmp_path / "x.safetensors", state)
    with pytest.raises(WeightsError, match="does not compute"):
        export.refuse_difference(whole / "checkpoint.pt", tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def promised_miou(name: str) -> float:
    """As the product, by the model card."""
    card = (WEIGHTS / f"{name}.md").read_text()
    found = re.search(r"the product \(`Matter.alpha`\) \| 448 \| ([\d.]+)", card)
    assert found is not None
    return float(found[1])


@pytest.mark.skipif(not REAL_VALIDATION.exists(), reason="the validation pictures are not on this machine")
def test_shipped_weights_are_as_good_as_promised_and_the_wide_ones_edges_better():
    """What the model cards say of pictures never trained on, as the product computes it."""
    pairs, edges = sets.read_tar(REAL_VALIDATION), {}
    for name in ("banet64", "banet512"):
        predict = evaluate.predictor(name, size=448, precision="float32", device="cpu", product=True)
        scores, miou = evaluate.score(predict, pairs)
        assert len(scores) == 188
        assert miou == pytest.approx(promised_miou(name), abs=0.05)
        assert miou >= 93.9  # shipped weights only get better
        edges[name] = evaluate.summary(scores, miou)["boundary_iou"]
    assert edges["banet512"] > edges["banet64"]


def test_graphs_compute_what_the_network_does(whole, tmp_path, capsys):
    import onnxruntime

    path = str(whole / "checkpoint.pt")
    export.main([path, "--onnx", str(tmp_path / "a.onnx"), "--pt2", str(tmp_path / "a.pt2")])
    assert capsys.readouterr().out.count("differ by") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.pt2"]
    network = checkpoint.network(path)
    image = torch.randn(3, 3, 64, 224)
    with torch.no_grad():
        wanted = torch.sigmoid(network(image).alpha)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    (found,) = session.run(None, {"image": image.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert {i.name for i in (*session.get_inputs(), *session.get_outputs())} == {"image", "alpha"}


def test_graph_that_computes_something_else_is_removed(whole, tmp_path):
    network = checkpoint.network(whole / "checkpoint.pt")
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match="its alphas differ by"):
        graphs.compare(
            network, tmp_path / "x.onnx", lambda image: torch.zeros(len(image), 1, *image.shape[2:])
        )
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="only BANet can be exported"):
        graphs.trace(torch.nn.Identity())
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        export.main([str(whole / "checkpoint.pt"), "--pt2", str(tmp_path / "file" / "x.pt2")])
    assert caught.value.code == OutputError.exit_code


def test_average_with_the_narrow_network_that_a_wide_one_started_from(root, whole, tmp_path):
    wide, out = (tmp_path / name / "checkpoint.pt" for name in ("wide", "mean"))
    first = whole / "checkpoint.pt"
    train.train(configure(root, wide.parent, init=str(first), channels=72))
    image = torch.randn(1, 3, 64, 96)
    for share, source in (("0", first), ("1", wide)):
        average.main([str(first), str(wide), "--share", share, "--out", str(out)])
        with torch.no_grad():
            wanted, found = (checkpoint.network(path)(image).alpha for path in (source, out))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(SystemExit):
        average.main([str(wide), str(first), "--out", str(out)])


def test_what_a_narrow_network_learnt_is_added_to_a_wide_one(root, whole, tmp_path, capsys):
    first = whole / "checkpoint.pt"
    wide, later, plain, out = (
        tmp_path / name / "checkpoint.pt" for name in ("wide", "later", "plain", "out")
    )
    train.train(configure(root, wide.parent, init=str(first), channels=72, iterations=1))
    train.train(configure(root, later.parent, init=str(first), iterations=2))
    average.main([str(first), str(wide), "--share", "0", "--out", str(plain)])  # computes what the first does
    image = torch.randn(1, 3, 64, 96)
    for share, source in (("0", first), ("1", later)):
        words = [str(plain), str(later), "--since", str(first), "--share", share, "--out", str(out)]
        average.main(words)
        with torch.no_grad():
            wanted, found = (checkpoint.network(path)(image).alpha for path in (source, out))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    state = checkpoint.load(out)
    assert [a["iteration"] for a in state["ancestors"]] == [8, 8, 2]
    assert "To it was added what was learnt up to `checkpoint.pt` (iteration 2" in card.ancestry(state)
    with pytest.raises(SystemExit) as stopped:
        average.main([str(later), str(wide), "--since", str(first), "--out", str(out)])
    assert stopped.value.code == UsageError.exit_code
    assert "hold different networks" in capsys.readouterr().err


def test_average_remembers_what_both_have_learnt_from(root, tmp_path):
    paths = {}
    for name, learnt, start in (
        ("a", "studio-train", ""),
        ("b", "portraits-train", "a"),
        ("c", "backgrounds", ""),
    ):
        paths[name] = tmp_path / name / "checkpoint.pt"
        init = str(paths[start]) if start else ""
        train.train(configure(root, paths[name].parent, iterations=1, sets={learnt: 1.0}, init=init))
    mean = tmp_path / "mean.pt"
    checkpoint.save(mean, average.average(paths["b"], paths["c"], share=0.5))
    added = average.plus(paths["a"], mean, paths["c"], share=1)
    for state in (checkpoint.load(mean), added):
        assert sorted(checkpoint.sets_seen(state)) == ["backgrounds", "portraits-train", "studio-train"]
    text = card.ancestry(checkpoint.load(mean))
    assert "started from the weights of `checkpoint.pt` (iteration 1; studio-train)" in text
    assert "averaged with the weights of `checkpoint.pt` (iteration 1; portraits-train)" in text


@pytest.mark.parametrize("option", ["--json", "--table", "--sheet"])
def test_evaluate_looks_for_its_folder_before_it_measures(tmp_path, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([option, str(tmp_path / "none" / "x"), "--data", str(tmp_path / "no.tar")])
    assert stopped.value.code == OutputError.exit_code
    assert f"x: can't be written (no folder {tmp_path / 'none'})" in capsys.readouterr().err


def test_average_lies_between_two_checkpoints(root, tmp_path, capsys):
    paths = []
    for number in (1, 2):
        train.train(configure(root, tmp_path / str(number), iterations=1, seed=number))
        paths.append(tmp_path / str(number) / "checkpoint.pt")
    out = tmp_path / "mean" / "checkpoint.pt"
    average.main([*map(str, paths), "--share", "0.25", "--out", str(out)])
    one, other, mean = (checkpoint.load(path)["ema"] for path in (*paths, out))
    for name, values in mean.items():
        expected = 0.75 * one[name] + 0.25 * other[name] if values.is_floating_point() else other[name]
        torch.testing.assert_close(values, expected)
    with pytest.raises(SystemExit) as stopped:
        average.main([*map(str, paths), "--share", "2", "--out", str(out)])
    assert stopped.value.code == UsageError.exit_code
    assert "--share 2: must be between 0 and 1" in capsys.readouterr().err


def test_commands_of_the_readme_are_understood():
    """As a shell does: in quotes a backslash stays, and a line's end is only a space in JSON."""
    text = (REPOSITORY / "training" / "README.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.split(r"\n(?=python|torchrun|pip)", block)]
    commands = [
        [word for word in shlex.split(line) if word.strip()] for line in lines if " -m training." in line
    ]
    modules = (ablate, average, compare, composites, evaluate, export, pseudo, quantise, soften, train)
    by_name = {module.__name__: module for module in modules}
    seen = []
    for words in commands:
        module = words[words.index("-m") + 1]
        by_name[module].parse(words[words.index("-m") + 2 :])
        seen.append(module)
    assert set(seen) == set(by_name)

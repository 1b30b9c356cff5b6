"""How runs may learn: presets, rates, precisions, compilers, several processes; and what they log of it."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from training_runs import REPOSITORY, configure, lines, options

from banet_stream.errors import BanetStreamError, UsageError
from banet_stream.network import BANet
from training import card, checkpoint, data, distributed, logs, losses, train
from training import config as configuration

pytestmark = pytest.mark.usefixtures("one_thread")


def test_presets_are_starting_values_that_options_change():
    assert train.parse([]) == train.Config(**configuration.PRESETS["best"])
    paper = train.parse(["--preset", "paper"])
    found = (paper.optimiser, paper.momentum, paper.weight_decay, paper.max_rate, paper.batch)
    assert found == ("sgd", 0.9, 1e-4, 0.1, 16)
    assert (paper.iterations, paper.augmentation, paper.refine_weight) == (40_000, "paper", 0)
    second = train.parse(["--preset", "paper-refine", "--iterations", "100"])
    assert (second.iterations, second.refine_weight, second.init) == (100, 0.1, "runs/paper/checkpoint.pt")
    assert second.warm_up > 0 == paper.warm_up
    with pytest.raises(SystemExit):
        train.parse(["--preset", "papier"])


def test_papers_two_stages(root, tmp_path):
    """SGD at once at its largest rate; then from there, with the refine loss, warmed up."""
    small = {
        "preset": "paper",
        "batch": 2,
        "size_start": 64,
        "size_end": 64,
        "iterations": 12,
        "log_every": 4,
    }
    sets = {"portraits-train": 1.0}
    for preset, out, more in (
        ("paper", "one", {}),
        ("paper-refine", "two", {"init": str(tmp_path / "one" / "checkpoint.pt")}),
    ):
        values = configuration.PRESETS[preset] | small | more
        values |= {"data": str(root), "out": str(tmp_path / out), "sets": sets, "workers": 0}
        train.train(train.Config(**values))
    one, two = ([line for line in lines(tmp_path / out) if "rate" in line] for out in ("one", "two"))
    assert "refine" not in one[0]
    assert all(0 < line["refine"] < 10 for line in two)
    assert one[0]["rate"] > one[1]["rate"] > one[2]["rate"]
    state = checkpoint.load(tmp_path / "two" / "checkpoint.pt")
    assert all(torch.equal(state["ema"][k], v) for k, v in state["model"].items())  # no averaging here
    (kernels, others) = state["optimiser"]["param_groups"]
    assert kernels["weight_decay"] == others["weight_decay"] == 1e-4
    assert kernels["momentum"] == 0.9
    text = card.recipe(state["config"])
    assert "SGD with momentum 0.9, weight decay 0.0001 on everything" in text
    assert "0.1 x the refine loss" in text
    assert "Jaccard" not in text
    best = card.recipe(vars(train.parse(["--overlap-weight", "0.3"])))
    assert "0.3 x what the matte lacks in intersection over union (Jaccard)" in best
    assert "Muon (Adam where there are no large kernels), weight decay 0.01 on kernels" in best
    assert "a table before people 3 %, a pattern on them 7 %" in best
    assert "table" not in text
    assert "group" not in best
    assert "50 % of those are one of a group" in card.recipe(vars(train.parse(["--groups", "0.5"])))


@pytest.mark.parametrize(("preset", "summit"), [("paper", 0), ("paper-refine", 19)])
def test_papers_rates(root, tmp_path, preset, summit):
    """The first stage starts at its largest rate, the second climbs to it."""
    values = configuration.PRESETS[preset] | {"iterations": 200, "init": ""}
    run = train.Run(train.Config(**values | {"data": str(root), "out": str(tmp_path)}))
    run.optimiser.step()
    rates = [run.schedule.get_last_lr()[0]]
    for _ in range(199):
        run.schedule.step()
        rates.append(run.schedule.get_last_lr()[0])
    assert max(rates) == rates[summit] == pytest.approx(0.1, rel=1e-3)
    assert rates == sorted(rates[: summit + 1]) + sorted(rates[summit + 1 :], reverse=True)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2])
def test_short_warm_ups_are_none(root, tmp_path, share):
    """OneCycleLR fails where the warm-up is exactly one iteration."""
    run = train.Run(configure(root, tmp_path, iterations=10, warm_up=share))
    run.optimiser.step()
    rates = []
    for _ in range(9):
        rates.append(run.schedule.get_last_lr()[0])
        run.schedule.step()
    assert (rates[0] == max(rates)) == (share < 0.2)


@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_no_precision_is_emulated_unasked(root, tmp_path, monkeypatch, has_bfloat16, precision):
    monkeypatch.setattr("banet_stream.engines.cpu_has_bfloat16", lambda: has_bfloat16)
    assert train.Run(configure(root, tmp_path)).config.precision == precision
    assert train.Run(configure(root, tmp_path, precision="bfloat16")).config.precision == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_precisions_learn_and_resume(root, tmp_path, precision):
    config = configure(root, tmp_path, iterations=12, max_rate=1e-2, precision=precision, log_every=3)
    train.train(dataclasses.replace(config, limit_minutes=1e-9))
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    assert ("scaler" in state) == (precision == "float16")
    train.train(config)
    found = [line["segmentation"] for line in lines(tmp_path) if "rate" in line]
    assert found[-1] < found[0]


def test_gradients_that_float16_can_not_hold_are_left_out_and_the_scale_halved(root, tmp_path):
    run = train.Run(configure(root, tmp_path, precision="float16"))
    samples, _ = train.open_data(run.config, range(1), distributed.World())
    before = {k: v.clone() for k, v in run.model.named_parameters()}
    run.scaler.load_state_dict(run.scaler.state_dict() | {"scale": 2.0**40})
    run.model.train()
    run.step(samples.make(0))
    assert run.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[k], v) for k, v in run.model.named_parameters())
    run.scaler.load_state_dict(run.scaler.state_dict() | {"scale": 2.0**-11})
    with pytest.raises(BanetStreamError, match="no numbers any more"):
        run.step(samples.make(0))


def test_compiled_run_learns_what_an_uncompiled_one_does(root, whole, tmp_path):
    """Dynamo without a code generator: the graph is traced and run, in seconds."""
    train.train(configure(root, tmp_path, compile="eager"))
    a, b = (checkpoint.load(out / "checkpoint.pt")["ema"] for out in (whole, tmp_path))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=1e-3)


def test_unknown_compiler_is_refused(root, tmp_path):
    with pytest.raises(UsageError, match=r"--compile: must be one of .*inductor"):
        train.train(configure(root, tmp_path, compile="abacus"))


def torchrun(root, out, *more, processes=2):
    words = options(configure(root, out, iterations=6, save_every=2, **dict(more)))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={processes}", "-m", "training.train", *words),
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_two_processes_train_one_model_and_go_on(root, tmp_path):
    """gloo on the CPU: the gradients' mean over both halves of each batch; one of them writes."""
    first = torchrun(root, tmp_path, ("limit_minutes", 1e-9), ("precision", "float32"), ("log_every", 1))
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("starting at iteration 0") == 1
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    assert state["iteration"] == 1
    # What one process with the same halves would have computed, batch norm seeing one half at a time.
    config = configure(root, tmp_path / "alone", iterations=6, precision="float32")
    run = train.Run(config)
    run.model.train()
    gradients, halves = [], []
    for rank in (0, 1):
        samples, _ = train.open_data(config, range(6), distributed.World(rank, 2))
        batch = data.prepare(samples.make(0), "cpu")
        model = copy.deepcopy(run.model)
        loss, terms = losses.total(model(batch.image), batch)
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        halves.append(terms["segmentation"].item())
    for p, a, b in zip(run.model.parameters(), *gradients, strict=True):
        p.grad = (a + b) / 2
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimiser.step()
    for name, value in run.model.named_parameters():
        torch.testing.assert_close(state["model"][name], value.detach(), rtol=1e-3, atol=2e-4)
    assert lines(tmp_path)[0]["segmentation"] == pytest.approx(halves[0], abs=1e-4)
    second = torchrun(root, tmp_path, ("precision", "float32"), ("log_every", 1))
    assert second.returncode == 0, second.stderr
    assert "resumed at iteration 1" in second.stdout
    assert [line["iteration"] for line in lines(tmp_path) if "rate" in line] == [1, 2, 3, 4, 5, 6]


def test_batch_that_processes_can_not_share_is_refused(root, tmp_path):
    found = torchrun(root, tmp_path, ("batch", 3))
    assert found.returncode != 0
    assert "--batch: must be a multiple of the 2 processes, got 3" in found.stderr
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_tensorboard_has_curves_and_pictures(root, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configure(root, tmp_path, tensorboard=True, evaluate_every=4)
    train.train(dataclasses.replace(config, limit_minutes=1e-9))
    train.train(config)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("segmentation")] == [2, 4, 6, 8]
    assert {"rate", "boundary", "miou", "waiting"} <= set(found.Tags()["scalars"])
    picture = found.Images("validation")[-1]
    assert (picture.step, picture.height) == (8, 220)


def test_log_says_how_long_the_device_waited(root, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])

    def batches():
        for _ in range(2):
            clock[0] += 3  # making a batch takes three seconds
            yield "a batch"

    means, made = logs.Means(), batches()
    for loss in (1.0, 2.0):
        assert means.timed(made) == "a batch"
        clock[0] += 1  # and the step one
        means.add({"loss": torch.tensor(loss)})
    assert means.take() == {"loss": 1.5, "waiting": 0.75, "per_minute": 15}
    monkeypatch.undo()
    train.train(configure(root, tmp_path, iterations=2))
    assert all(0 <= line["waiting"] <= 1 for line in lines(tmp_path) if "rate" in line)


def test_average_follows_weights_and_running_statistics():
    torch.manual_seed(0)
    ema, model = BANet(64), BANet(64)
    before = {k: v.clone() for k, v in ema.state_dict().items()}
    model.semantic.stem[1].num_batches_tracked += 7
    train.update_ema(ema, model, 0.75)
    after, current = ema.state_dict(), model.state_dict()
    for name in ("head.weight", "semantic.stem.1.running_mean", "semantic.stem.1.running_var"):
        torch.testing.assert_close(after[name], 0.75 * before[name] + 0.25 * current[name])
    assert after["semantic.stem.1.num_batches_tracked"] == 7

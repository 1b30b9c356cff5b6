"""Training runs end to end on tiny sets: learning, resuming, being killed, evaluating, exporting."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_sets import TRAINED, person, png, write_sets, write_tar

from banet_stream import Matter
from banet_stream.engines import WEIGHTS, load_network
from banet_stream.errors import (
    BanetStreamError,
    InputError,
    Interrupted,
    OutputError,
    UsageError,
    WeightsError,
)
from banet_stream.network import BANet
from training import (
    ablate,
    average,
    card,
    checkpoint,
    compare,
    composites,
    data,
    distributed,
    evaluate,
    export,
    graphs,
    logs,
    losses,
    pseudo,
    quantise,
    sets,
    train,
)
from training import config as configuration
from training.logs import Log

REPOSITORY = Path(__file__).parent.parent
REAL_VALIDATION = REPOSITORY.parent / "shared" / "data" / "portraits-val.tar"
FORKED = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the loader's way on Linux


TIMES = ("seconds", "waiting", "per_minute")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Pictures this small gain nothing from more, and a busy machine loses by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"))


def configure(root, out, **changes):
    small = {
        "data": str(root),
        "out": str(out),
        "iterations": 8,
        "batch": 2,
        "size_start": 64,
        "size_end": 64,
        "workers": 0,
        "log_every": 2,
        "save_every": 3,
        "evaluate_every": 1000,
        "sets": TRAINED,
    }
    return train.Config(**small | changes)


def options(config):
    """The command line of a configuration."""
    words = []
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), f.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words.append(f"--{name}={json.dumps(value) if f.name == 'sets' else value}")
    return words


def flatten(value, name=""):
    """Every leaf of a checkpoint by its path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flatten(part, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, part in enumerate(value) for k, v in flatten(part, f"{name}/{i}").items()}
    return {name: value}


def assert_same_state(a, b):
    """Two checkpoints hold the same training, to the bit."""
    names = ("iteration", "model", "ema", "optimiser", "schedule", "ancestors")
    a, b = (flatten({n: checkpoint.load(path)[n] for n in names}) for path in (a, b))
    assert a.keys() == b.keys()
    differing = [
        n for n in a if not (torch.equal(a[n], b[n]) if isinstance(a[n], torch.Tensor) else a[n] == b[n])
    ]
    assert not differing


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An uninterrupted run of eight iterations."""
    out = tmp_path_factory.mktemp("whole")
    train.train(configure(root, out))
    return out


def test_it_learns(root, tmp_path):
    train.train(configure(root, tmp_path, iterations=30, max_rate=1e-2, log_every=5, ema_decay=0.8))
    found = [line for line in lines(tmp_path) if "rate" in line]
    assert len(found) == 6
    for name in ("segmentation", "boundary"):
        assert (found[-2][name] + found[-1][name]) / 2 < 0.6 * found[0][name]


@FORKED
def test_it_is_deterministic_whatever_the_workers(root, whole, tmp_path):
    train.train(configure(root, tmp_path, workers=1))
    assert_same_state(whole / "checkpoint.pt", tmp_path / "checkpoint.pt")
    losses = []
    for out in (whole, tmp_path):
        losses.append([{k: v for k, v in line.items() if k not in TIMES} for line in lines(out)])
    assert losses[0] == losses[1]


def test_seed_decides_the_initial_weights(root, tmp_path):
    runs = [train.Run(configure(root, tmp_path, seed=seed)) for seed in (1, 1, 2)]
    first, same, other = (run.model.state_dict()["head.weight"] for run in runs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_checkpoint_has_the_promised_format(whole):
    state = checkpoint.load(whole / "checkpoint.pt")
    assert set(state) == {*checkpoint.REQUIRED, "ancestors"}
    assert state["iteration"] == 8
    assert set(state["config"]) == {f.name for f in dataclasses.fields(train.Config)}
    assert not list(whole.glob("*.part"))


def interrupt_at(monkeypatch, iteration):
    step = train.Run.step

    def interrupted(run, batch):
        terms = step(run, batch)
        if run.iteration == iteration:
            signal.raise_signal(signal.SIGINT)
        return terms

    monkeypatch.setattr(train.Run, "step", interrupted)


def test_interrupted_run_saves_and_goes_on_as_if_nothing_had_been(root, whole, tmp_path, monkeypatch):
    config = configure(root, tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(Interrupted, match="stopped at iteration 5"):
            train.train(config)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint.load(tmp_path / "checkpoint.pt")["iteration"] == 5
    train.train(config)
    assert_same_state(whole / "checkpoint.pt", tmp_path / "checkpoint.pt")


def test_second_request_is_not_held_back():
    with train.stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_workers_leave_signals_to_the_parent(root, tmp_path):
    """Ctrl-C and many job systems signal every process of a run; the workers must live until the save."""
    config = configure(root, tmp_path, workers=1, iterations=500)
    command = [sys.executable, "-m", "training.train", *options(config)]
    log = tmp_path / "log.jsonl"
    with subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        deadline = time.monotonic() + 60
        while not log.exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGTERM)
        errors = run.communicate(timeout=60)[1]
    assert run.returncode == Interrupted.exit_code
    assert errors.startswith("training.train: stopped at iteration ")
    assert errors.count("\n") == 1
    saved = checkpoint.load(tmp_path / "checkpoint.pt")["iteration"]
    assert f"iteration {saved};" in errors


def test_time_limit_saves_evaluates_and_goes_on(root, whole, tmp_path, capsys):
    for iteration in (1, 2):
        train.train(configure(root, tmp_path, limit_minutes=1e-9))
        assert checkpoint.load(tmp_path / "checkpoint.pt")["iteration"] == iteration
        assert "miou" in lines(tmp_path)[-1]
    # Iteration 2 is the only one its start has summed, so the mean is that of a loss, not of half of one.
    uninterrupted, resumed = (
        next(line["segmentation"] for line in lines(out) if "rate" in line) for out in (whole, tmp_path)
    )
    assert resumed == pytest.approx(uninterrupted, rel=0.4)
    train.train(configure(root, tmp_path))
    assert_same_state(whole / "checkpoint.pt", tmp_path / "checkpoint.pt")
    capsys.readouterr()
    train.train(configure(root, tmp_path))
    assert "finished already" in capsys.readouterr().out


def test_kill_9_and_the_same_command_goes_on(root, whole, tmp_path):
    command = [
        sys.executable,
        "-m",
        "training.train",
        *options(configure(root, tmp_path, log_every=1, workers=1)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as one_thread

    def start():
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)

    with start() as first:
        deadline = time.monotonic() + 60
        log = tmp_path / "log.jsonl"
        while not (log.exists() and '"iteration": 5' in log.read_text()):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert checkpoint.load(tmp_path / "checkpoint.pt")["iteration"] in (3, 6)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 7, "segm')  # cut off in the middle of a line
    (tmp_path / "checkpoint.part").write_bytes(b"and of a checkpoint")
    with start() as second:
        printed = second.communicate(timeout=60)[0]
    assert second.returncode == 0
    assert "resumed at iteration" in printed
    assert_same_state(whole / "checkpoint.pt", tmp_path / "checkpoint.pt")
    assert [line["iteration"] for line in lines(tmp_path) if "rate" in line] == list(range(1, 9))


def test_another_configuration_is_refused_field_by_field(root, whole):
    before = (whole / "checkpoint.pt").read_bytes()
    changed = configure(root, whole, batch=3, max_rate=1e-3, sets={"portraits-train": 1.0})
    with pytest.raises(UsageError) as caught:
        train.train(changed)
    for words in ("batch was 2, is 3", "max_rate was 0.002, is 0.001", "sets was", "--init"):
        assert words in str(caught.value)
    assert "seed" not in str(caught.value)
    assert (whole / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": "nowhere"}, InputError, r"--data nowhere: there is no .*portraits-train\.tar"),
        ({"sets": {"portraits-tain": 1.0}}, InputError, r"there is no .*portraits-tain\.tar"),
        ({"batch": 0}, UsageError, "--batch: must be 1 or more, got 0"),
        ({"size_start": 32}, UsageError, "--size_start, --size_end: must be 64 or more"),
        ({"ema_decay": 1.0}, UsageError, "--ema_decay: must be at least 0 and below 1"),
        ({"device": "abacus"}, BanetStreamError, "--device abacus"),
        ({"init": "nothing.pt"}, WeightsError, r"nothing\.pt: can't be read as a checkpoint"),
        ({"init": "nothing"}, WeightsError, "neither a shipped model"),
        ({"channels": 60}, UsageError, "channels must be a multiple of 8"),
    ],
)
def test_wrong_options_end_with_a_line_that_names_them(root, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        train.train(configure(root, tmp_path, **change))
    assert not list(tmp_path.iterdir())


def test_commands_of_the_readme_are_understood():
    """As a shell does: in quotes a backslash stays, and a line's end is only a space in JSON."""
    text = (REPOSITORY / "training" / "README.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.split(r"\n(?=python|torchrun|pip)", block)]
    commands = [
        [word for word in shlex.split(line) if word.strip()] for line in lines if " -m training." in line
    ]
    modules = (ablate, average, compare, composites, evaluate, export, pseudo, quantise, train)
    by_name = {module.__name__: module for module in modules}
    seen = []
    for words in commands:
        module = words[words.index("-m") + 1]
        by_name[module].parse(words[words.index("-m") + 2 :])
        seen.append(module)
    assert set(seen) == set(by_name)


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


def test_error_in_a_worker_ends_the_run_at_once(root, tmp_path):
    """Nothing is left to wait for at the exit, and nobody is left behind."""
    sets = write_sets(tmp_path / "sets")
    image = png(person(1)[0])
    write_tar(sets / "portraits-train.tar", {"bad.jpg": b"no picture", "bad.png": image})
    command = [sys.executable, "-m", "training.train", "--data", str(sets), "--out", str(tmp_path / "out")]
    run = subprocess.run(
        [*command, "--sets", '{"portraits-train": 1}'],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == InputError.exit_code
    assert run.stderr == "training.train: portraits-train.tar: bad: the picture can't be decoded\n"


def test_interrupt_before_the_first_iteration_is_one_line(root, tmp_path, monkeypatch, capsys, request):
    # A run in the background of a script would ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(sets, "read", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as caught:
        train.main(["--data", str(root), "--out", str(tmp_path), "--sets", json.dumps(TRAINED)])
    assert caught.value.code == Interrupted.exit_code
    assert capsys.readouterr().err == "training.train: interrupted; the last checkpoint is as it was\n"


def test_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"log\.jsonl: can't be written"):
        Log(tmp_path, 0).write(1, loss=1.0)


def test_command_line_errors_are_one_line_and_an_exit_code(root, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert caught.value.code == InputError.exit_code
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        train.main(["--sets", "[1]"])
    assert "must be JSON like" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_damaged_checkpoint_is_refused_and_kept(root, tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(WeightsError, match=r"checkpoint\.pt"):
        train.train(configure(root, tmp_path))
    assert path.read_bytes() == before


def test_full_disk_leaves_the_last_checkpoint(root, whole, monkeypatch, tmp_path):
    before = (whole / "checkpoint.pt").read_bytes()
    shutil.copy(whole / "checkpoint.pt", tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"checkpoint\.pt: the checkpoint can't be written .*No space left"):
        train.Run(configure(root, tmp_path)).save()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_divergence_ends_the_run_before_it_is_saved(root, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "to_input", lambda images: torch.full((2, 3, 64, 64), float("nan")))
    with pytest.raises(BanetStreamError, match="iteration 1: the gradients are no numbers"):
        train.train(configure(root, tmp_path))
    assert not (tmp_path / "checkpoint.pt").exists()


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


# Presets, optimisers, precisions


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


# Going on from weights


def test_runs_of_before_a_field_existed_go_on_and_can_be_started_from(root, whole, tmp_path):
    """Checkpoints of the first recipe know neither network nor optimiser nor preset."""
    early = ("preset", "network", "augmentation", "refine_weight", "optimiser", "momentum", "decay")
    early += ("composites", "largest_gradient", "precision", "compile", "broken", "validation", "tensorboard")
    for name in ("resumed", "old"):
        (tmp_path / name).mkdir()
    train.train(configure(root, tmp_path / "resumed", limit_minutes=1e-9))
    state = checkpoint.load(tmp_path / "resumed" / "checkpoint.pt")
    state["config"] = {k: v for k, v in state["config"].items() if k not in early}
    torch.save(state, tmp_path / "resumed" / "checkpoint.pt")
    torch.save(state, tmp_path / "old" / "checkpoint.pt")
    train.train(configure(root, tmp_path / "resumed"))
    assert_same_state(whole / "checkpoint.pt", tmp_path / "resumed" / "checkpoint.pt")
    run = train.Run(configure(root, tmp_path / "new", init=str(tmp_path / "old" / "checkpoint.pt")))
    assert all(torch.equal(v, state["ema"][k]) for k, v in run.model.state_dict().items())
    assert "AdamW, weight decay 0.01 on kernels" in card.recipe(state["config"])


def test_weights_of_another_network_are_refused(root, whole, tmp_path):
    config = configure(root, tmp_path, init=str(whole / "checkpoint.pt"), network="banet-plain")
    with pytest.raises(UsageError, match=r"--init .* holds another network than --network banet-plain"):
        train.train(config)


def test_init_starts_from_averaged_weights_and_remembers_where_they_come_from(root, whole, tmp_path):
    first = whole / "checkpoint.pt"
    config = configure(root, tmp_path / "a", init=str(first), batch=3, sets={"portraits-train": 1.0})
    run = train.Run(config)
    wanted = checkpoint.load(first)["ema"]
    assert all(torch.equal(v, wanted[k]) for k, v in run.model.state_dict().items())
    assert run.iteration == 0
    train.train(config)
    state = checkpoint.load(tmp_path / "a" / "checkpoint.pt")
    assert state["ancestors"] == [{"init": "checkpoint.pt", "iteration": 8, "sets": TRAINED}]
    assert checkpoint.sets_seen(state) == ["portraits-train", "studio-train", "backgrounds"]
    weights = tmp_path / "w.safetensors"
    checkpoint.write_weights(weights, state)
    (found,) = checkpoint.ancestors(str(weights))
    assert list(found["sets"]) == checkpoint.sets_seen(state)
    assert "started from the weights of `checkpoint.pt` (iteration 8; " in card.ancestry(state)


def test_early_checkpoints_say_where_they_come_from_too(root, whole, tmp_path):
    state = checkpoint.load(whole / "checkpoint.pt")
    del state["ancestors"]
    assert checkpoint.lineage(state) == []
    state["config"]["init"] = str(whole / "checkpoint.pt")
    torch.save(state, tmp_path / "early.pt")
    export.export(tmp_path / "early.pt", name="tiny", root=root, folder=tmp_path)
    assert "started from the weights of `checkpoint.pt` (iteration 8; " in (tmp_path / "tiny.md").read_text()
    state["config"]["init"] = str(tmp_path / "gone.pt")
    torch.save(state, tmp_path / "early.pt")
    with pytest.raises(WeightsError, match=r"gone\.pt"):
        export.export(tmp_path / "early.pt", name="tiny", root=root, folder=tmp_path)


# Evaluating


def test_train_and_evaluate_agree(root, whole):
    """The run's own log, the command on its checkpoint, and a plain loop over the network."""
    pairs = sets.read_tar(root / "portraits-val.tar")
    path = str(whole / "checkpoint.pt")
    predict = evaluate.predictor(path, size=320, precision="float32", device="cpu", product=False)
    numbers = evaluate.summary(*evaluate.score(predict, pairs))
    logged = lines(whole)[-1]
    assert numbers["miou"] == pytest.approx(logged["miou"], abs=0.01)
    assert numbers["miou_per_picture"] == pytest.approx(logged["miou_per_picture"], abs=0.01)


def test_product_is_what_matter_computes(root, whole, tmp_path):
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


# Exporting


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
    state["config"]["sets"] = train.Config().sets
    measured = card.Measurement(320, False, 3, dict.fromkeys(("miou", "miou_per_picture"), 1.0) | NUMBERS)
    text = card.text("banet64", state, [measured])
    assert all(f"| {name} |" in text for name in train.Config().sets)
    assert "not described" not in text
    assert "`video-frames` and `fashion-soft` are pseudo-labels: output of RobustVideoMatting" in text


NUMBERS = {"boundary_iou": 0.5, "mad": 0.1, "mse": 0.1}


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


@pytest.mark.skipif(not REAL_VALIDATION.exists(), reason="the validation pictures are not on this machine")
@pytest.mark.skipif(not (WEIGHTS / "banet64.md").exists(), reason="no trained banet64 is here yet")
def test_shipped_weights_are_as_good_as_promised():
    """What the model card says of pictures never trained on, as the product computes it."""
    predict = evaluate.predictor("banet64", size=512, precision="float32", device="cpu", product=True)
    scores, total = evaluate.score(predict, sets.read_tar(REAL_VALIDATION))
    assert len(scores) == 188
    card = (WEIGHTS / "banet64.md").read_text()
    promised = re.search(r"the product \(`Matter.alpha`\) \| 512 \| ([\d.]+)", card)
    assert promised is not None
    assert total == pytest.approx(float(promised[1]), abs=0.05)
    assert total >= 91.6  # shipped weights only get better


# Several processes


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


# Curves and pictures


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


# Graphs


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

"""Training runs end to end on tiny sets: learning, resuming, being killed, going on from weights."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from training_runs import FORKED, REPOSITORY, TIMES, assert_same_state, configure, lines, options
from training_sets import TRAINED, person, png, write_sets, write_tar

from banet_stream.errors import (
    BanetStreamError,
    InputError,
    Interrupted,
    OutputError,
    UsageError,
    WeightsError,
)
from training import card, checkpoint, data, export, sets, train
from training.logs import Log

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_error_in_a_worker_ends_the_run_at_once(tmp_path):
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


def test_command_line_errors_are_one_line_and_an_exit_code(tmp_path, capsys):
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


def test_runs_of_before_a_field_existed_go_on_and_can_be_started_from(root, whole, tmp_path):
    """Checkpoints of the first recipe know neither network nor optimiser nor preset."""
    early = ("preset", "network", "augmentation", "refine_weight", "optimiser", "momentum", "decay")
    early += (
        "composites",
        "occluders",
        "groups",
        "largest_gradient",
        "precision",
        "compile",
        "broken",
        "validation",
        "tensorboard",
    )
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
    read = checkpoint.load(tmp_path / "old" / "checkpoint.pt")
    assert "AdamW, weight decay 0.01 on kernels" in card.recipe(read["config"])
    assert "table" not in card.recipe(read["config"])  # there were none before people


def test_weights_of_another_network_are_refused(root, whole, tmp_path):
    config = configure(root, tmp_path, init=str(whole / "checkpoint.pt"), network="banet-plain")
    with pytest.raises(UsageError, match=r"--init .* holds another network than --network banet-plain"):
        train.train(config)


def test_wider_network_begins_as_the_narrow_one_and_all_of_it_learns(root, whole, tmp_path):
    first = whole / "checkpoint.pt"
    config = configure(root, tmp_path / "wide", init=str(first), channels=128)
    run = train.Run(config)
    narrow, image = checkpoint.network(first), torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        wanted, found = narrow(image), run.ema(image)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    begun = {name: values.clone() for name, values in run.model.state_dict().items()}
    train.train(config)
    learnt = checkpoint.load(tmp_path / "wide" / "checkpoint.pt")["model"]
    new = [name for name, values in begun.items() if values.shape != narrow.state_dict()[name].shape]
    assert len(new) > 50
    for name in (n for n in new if n.endswith("weight")):
        assert (learnt[name] != begun[name])[-1].any(), name  # the last output's kernel is a new one's
    (lateral,) = (n for n in new if n == "semantic.laterals.1.0.weight")
    assert learnt[lateral][:, 64:].abs().min(0).values.max() > 0  # and the way back up hears the new ones


def test_context_blocks_can_be_given_to_a_trained_network(root, whole, tmp_path):
    first = whole / "checkpoint.pt"
    image = torch.randn(2, 3, 96, 160)
    for channels in (64, 72):
        out = tmp_path / str(channels)
        config = configure(root, out, init=str(first), channels=channels, context=1, iterations=3)
        with torch.no_grad():
            wanted, found = (net(image).alpha for net in (checkpoint.network(first), train.Run(config).ema))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        train.train(config)
        learnt = checkpoint.load(out / "checkpoint.pt")["model"]
        assert learnt["semantic.context.0.0.residual.6.weight"].abs().max() > 0
    with pytest.raises(UsageError, match=r"holds another network than .* --context 0"):
        train.train(configure(root, tmp_path / "without", init=str(tmp_path / "64" / "checkpoint.pt")))


def test_narrower_network_is_refused(root, whole, tmp_path):
    train.train(configure(root, tmp_path / "wide", init=str(whole / "checkpoint.pt"), channels=72))
    wide = tmp_path / "wide" / "checkpoint.pt"
    with pytest.raises(UsageError, match="holds another network than --network banet --channels 64"):
        train.train(configure(root, tmp_path / "narrow", init=str(wide)))


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

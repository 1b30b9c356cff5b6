"""Encoders that change how this process is scheduled are stopped from it: see banet_stream/scheduling.py."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import read

from banet_stream import EncodeOptions, Matter, doctor, process
from banet_stream.codecs import CODECS
from banet_stream.scheduling import kept_scheduling, policies

root_of_linux = pytest.mark.skipif(
    not hasattr(os, "sched_setscheduler") or os.geteuid() != 0,
    reason="only root of Linux may change how threads are scheduled",
)
POLICY_OF_A_CHILD = (sys.executable, "-c", "import os; print(os.sched_getscheduler(0))")


@root_of_linux
@pytest.mark.parametrize("resume", [False, True])
def test_av1_leaves_this_process_as_it_was(
    clip: Callable[..., Path], matter: Matter, tmp_path: Path, resume: bool
) -> None:
    seen: set[tuple[int, int]] = set()
    output = tmp_path / "out.mkv"
    process(
        clip(),
        output,
        background="green",
        matter=matter,
        encoding=EncodeOptions(codec="av1"),
        resume=resume,
        progress=lambda _: seen.update(policies().values()),
    )
    assert read(output).codec == "libdav1d"
    assert seen == {(os.SCHED_OTHER, 0)}
    assert set(policies().values()) == {(os.SCHED_OTHER, 0)}
    child = subprocess.run(POLICY_OF_A_CHILD, capture_output=True, text=True, check=True)
    assert int(child.stdout) == os.SCHED_OTHER


@root_of_linux
def test_doctor_leaves_this_process_as_it_was() -> None:
    doctor.encode_one(CODECS["av1"])
    assert set(policies().values()) == {(os.SCHED_OTHER, 0)}


@root_of_linux
def test_threads_old_and_new_get_their_policy_back() -> None:
    chosen = (os.SCHED_BATCH, 0)
    ended = threading.Event()

    def run() -> None:
        mine = threading.get_native_id()
        os.sched_setscheduler(0, chosen[0], os.sched_param(0))
        with kept_scheduling():
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
            other = threading.Thread(target=ended.wait)  # real-time too, as it inherits it
            other.start()
            assert policies()[other.native_id or 0] == (os.SCHED_RR, 3)
        found.extend((policies()[mine], policies()[other.native_id or 0]))
        ended.set()
        other.join()

    found: list[tuple[int, int]] = []
    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
    assert found == [chosen, chosen]

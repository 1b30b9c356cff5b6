"""Nothing that is opened here changes how threads are scheduled."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")  # of Linux: a folder for each of this process's threads


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Takes back what happens inside to the scheduling policy of the threads that there were, and gives the
    caller's to new ones.

    SVT-AV1 4.1 run by root, as everything is in most containers, gives the highest real-time priority to its
    own threads and to the one that opens it, from which all that is started later inherits it. Such threads
    are never interrupted: one that waits busily stops the machine.
    """
    before = policies()
    own = before.get(threading.get_native_id())
    try:
        yield
    finally:
        for thread, policy in policies().items():
            wanted = before.get(thread, own)
            if wanted is not None and policy != wanted:
                with suppress(OSError):  # it has ended, or we may not; then nor could whoever changed it
                    os.sched_setscheduler(thread, wanted[0], os.sched_param(wanted[1]))


def policies() -> dict[int, tuple[int, int]]:
    """Policy and real-time priority of every thread of this process; empty but on Linux."""
    found = {}
    for folder in TASKS.iterdir() if TASKS.is_dir() else ():
        thread = int(folder.name)
        with suppress(OSError):  # it has ended
            found[thread] = (os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority)
    return found

"""One thing called by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from torch import Tensor


def call_from_threads(
    engine: Callable[[Tensor], Tensor], pictures: Sequence[Tensor], times: int
) -> list[list[Tensor]]:
    """What each thread, one per picture, got of ``times`` calls with its own."""
    found: list[list[Tensor]] = [[] for _ in pictures]

    def work(i: int) -> None:
        found[i] = [engine(pictures[i]) for _ in range(times)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(pictures))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(len(answers) == times for answers in found)
    return found

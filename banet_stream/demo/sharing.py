"""One model for everybody, taken in turns."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, cast

from torch import Tensor

from ..engines import TorchEngine

if TYPE_CHECKING:
    from ..matting import Matter


class Turns:
    """A lock that is handed on in the order of asking: nobody waits longer than all others take once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = self._served = 0

    def __enter__(self) -> None:
        with self._changed:
            ticket, self._asked = self._asked, self._asked + 1
            self._changed.wait_for(lambda: self._served == ticket)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()


class SharedEngine:
    """An engine for several videos, pictures and webcams at once: one frame of each in turn."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine, self.turns = engine, Turns()

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def __call__(self, image: Tensor) -> Tensor:
        with self.turns:
            return self.engine(image)

    def outputs(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See ``TorchEngine.outputs``."""
        with self.turns:
            return self.engine.outputs(image)


def share(matter: Matter) -> Matter:
    """``matter`` for several threads at once, and so every ``at_size`` made from it."""
    shared = matter.at_size(matter.size)
    shared.engine = cast("TorchEngine", SharedEngine(matter.engine))
    return shared

"""Takes people out of their background in video and puts any background behind them."""

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# Before torch starts its threads: spinning OpenMP workers stall a machine whose cores are busy.
_os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if _TYPE_CHECKING:
    from .background import Background, open_background
    from .codecs import EncodeOptions
    from .errors import (
        BackgroundError,
        BanetStreamError,
        DeviceError,
        IncompleteInput,
        InputError,
        Interrupted,
        MatteError,
        OutputError,
        UsageError,
        WeightsError,
    )
    from .live import LiveOptions, LiveSummary, process_live
    from .matting import Matter, MatteStream
    from .network import BANet
    from .picture import Explanation, cut_out, explain, replace_background
    from .stream import Matte, Progress, Summary, iter_mattes, process

__version__ = "0.1.0"

# Where they are. Each is imported when it is first asked for: with PyTorch that takes a second or two, in
# which the command wants to hear Ctrl-C.
_MODULES = {
    "BANet": "network",
    "Background": "background",
    "BackgroundError": "errors",
    "BanetStreamError": "errors",
    "DeviceError": "errors",
    "EncodeOptions": "codecs",
    "Explanation": "picture",
    "IncompleteInput": "errors",
    "InputError": "errors",
    "Interrupted": "errors",
    "LiveOptions": "live",
    "LiveSummary": "live",
    "Matte": "stream",
    "MatteError": "errors",
    "MatteStream": "matting",
    "Matter": "matting",
    "OutputError": "errors",
    "Progress": "stream",
    "Summary": "stream",
    "UsageError": "errors",
    "WeightsError": "errors",
    "cut_out": "picture",
    "explain": "picture",
    "iter_mattes": "stream",
    "open_background": "background",
    "process": "stream",
    "process_live": "live",
    "replace_background": "picture",
}


def __getattr__(name: str) -> _Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value  # from now on without this function
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "BANet",
    "Background",
    "BackgroundError",
    "BanetStreamError",
    "DeviceError",
    "EncodeOptions",
    "Explanation",
    "IncompleteInput",
    "InputError",
    "Interrupted",
    "LiveOptions",
    "LiveSummary",
    "Matte",
    "MatteError",
    "MatteStream",
    "Matter",
    "OutputError",
    "Progress",
    "Summary",
    "UsageError",
    "WeightsError",
    "__version__",
    "cut_out",
    "explain",
    "iter_mattes",
    "open_background",
    "process",
    "process_live",
    "replace_background",
]

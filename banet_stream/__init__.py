"""Takes people out of their background in video and puts any background behind them."""

import os as _os

# Before torch starts its threads: spinning OpenMP workers stall a machine whose cores are busy.
_os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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

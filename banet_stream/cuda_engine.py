"""The network in PyTorch on an NVIDIA GPU, launched as one CUDA graph instead of a hundred kernels.

It has run on no GPU yet. So nothing rests on it: what a graph gives is compared with the network's own answer
when it is captured, and where capturing fails or they differ, the network runs kernel by kernel, and says so.
The network's one operator of ours is compared with its reference before, which else takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Protocol

import torch
from torch import Tensor

from . import backends, ops, reference
from .engines import TorchEngine
from .errors import first_line
from .network import BANet, BANetOutput

log = logging.getLogger(__name__)

# A graph serves one shape and keeps its memory; videos of many shapes need no more than the last ones.
MOST_GRAPHS = 4
# The use of a shape at which it is captured: that costs about as much as so many runs, and what a region that
# moves looks like comes in dozens of shapes.
CAPTURED_AT = 8
# Runs before capturing: cuDNN chooses its algorithms, the allocator finds its memory.
WARM_UPS = 3
# How far logits in half precision may differ between two runs of the same kernels.
TOLERANCE = 1e-2
# A process captures one graph at a time, whichever engine asks.
CAPTURE_LOCK = threading.Lock()


class Graph(Protocol):
    """The network for one shape of image."""

    def __call__(self, image: Tensor) -> BANetOutput:
        """What the network gives, in memory that the next call overwrites."""


class CudaEngine(TorchEngine):
    """As TorchEngine, with a CUDA graph for each of the last shapes that come often. Several threads may call
    it, on one CUDA stream."""

    def __init__(self, network: BANet, device: torch.device, precision: str) -> None:
        super().__init__(network, device, precision)
        try_attention(self.device, self.dtype)
        self.name = "torch (CUDA graphs)"
        self.graphs: dict[tuple[int, ...], Graph] = {}  # the last used one last
        self._uses: dict[tuple[int, ...], int] = {}  # of shapes that have no graph
        self._capturing = True
        self._lock = threading.Lock()  # copying in, launching and copying out belong together

    def forward(self, image: Tensor) -> BANetOutput:
        """See TorchEngine."""
        with self._lock:
            graph = self.graph_for(image) if self._capturing else None
            if graph is None:
                return super().forward(image)
            return BANetOutput(*(output.clone() for output in graph(image)))

    def graph_for(self, image: Tensor) -> Graph | None:
        """The graph of this shape; None while it comes seldom, or where there can be none, from then on."""
        shape = tuple(image.shape)
        graph = self.graphs.pop(shape, None)
        if graph is None:
            self._uses[shape] = self._uses.get(shape, 0) + 1
            if self._uses[shape] < CAPTURED_AT:
                return None
            del self._uses[shape]
        try:
            graph = graph or checked(capture(self.network, image), self.network, image)
        except RuntimeError as error:
            settle(image.device)
            log.warning("CUDA graphs don't work here (%s): the network runs without them", first_line(error))
            self.name, self._capturing = TorchEngine.name, False
            self.graphs.clear()
            return None
        self.graphs[shape] = graph
        if len(self.graphs) > MOST_GRAPHS:
            del self.graphs[next(iter(self.graphs))]
        return graph


def try_attention(device: torch.device, dtype: torch.dtype) -> None:
    """The network's own operator on a small image: where its kernel fails or computes something else than the
    reference, that serves there from now on, and this is said.

    Raises:
        DeviceError: when the kernel is forced.
    """
    name = "boundary_attention"
    if not backends.has_kernel(name, device):
        return
    random = torch.Generator().manual_seed(1)
    logits, image = (torch.rand(2, *shape, generator=random).to(dtype) for shape in ((1, 9, 12), (3, 35, 47)))
    expected = reference.boundary_attention(logits.float(), image.float(), temperature=4.0)
    try:
        there = image.to(device, memory_format=torch.channels_last)
        found = ops.boundary_attention(logits.to(device), there, temperature=4.0).cpu().float()
        trouble = "" if float((found - expected).abs().max()) <= TOLERANCE else "it gives something else"
    except RuntimeError as error:
        trouble = first_line(error)
    if trouble:
        backends.leave_to_reference(name, device.type)
        log.warning("the kernel of %s does not work on %s (%s): its reference runs", name, device, trouble)


def capture(network: torch.nn.Module, image: Tensor) -> Graph:
    """A graph of the network, while nobody else captures one; as Captured takes and raises."""
    with CAPTURE_LOCK:
        return Captured(network, image)


def settle(device: torch.device) -> None:
    """Waits for what a failed capture left running, so that its error does not become the next launch's. What
    the allocator remembers of the capture stays."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):
            torch.cuda.synchronize(device)


class Captured:
    """A CUDA graph of the network.

    Args:
        network: prepared for the image's device.
        image: of the shape, type and memory format that all others will have.

    Raises:
        RuntimeError: when it can't be captured.
    """

    def __init__(self, network: torch.nn.Module, image: Tensor) -> None:
        self.image = image.clone(memory_format=torch.preserve_format)
        with torch.cuda.device(image.device):
            before = torch.cuda.current_stream()
            try:
                self._capture(network, before)
            finally:  # where capturing fails, torch leaves the thread on the stream that it captured
                torch.cuda.set_stream(before)

    def _capture(self, network: torch.nn.Module, before: torch.cuda.Stream) -> None:
        # What runs before capturing must be on another stream than the default one, and what is captured on
        # one of the image's device: torch's own for capturing is of the first device that ever captured.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(before)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                network(self.image)
        before.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads decode and composite meanwhile.
        with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
            self.output: BANetOutput = network(self.image)

    def __call__(self, image: Tensor) -> BANetOutput:
        """See Graph."""
        self.image.copy_(image)
        self.graph.replay()
        return self.output


def checked(graph: Graph, network: torch.nn.Module, image: Tensor) -> Graph:
    """The graph, if it gives what the network gives, for a picture that it was not captured with.

    Raises:
        RuntimeError: when it does not.
    """
    other = image.flip(3) + 1  # not the same one for a black picture, either
    expected, found = network(other).alpha.float(), graph(other).alpha.float()
    scale = float(expected.abs().max())
    if not float((found - expected).abs().max()) <= TOLERANCE * max(1.0, scale):
        raise RuntimeError("a graph gives other mattes than the network")
    return graph

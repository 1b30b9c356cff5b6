"""Contact sheets: pictures with their truth and prediction, to be looked at and not published."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .pairs import Array, Pair

# Pictures of this height, this many of them side by side.
SHEET_HEIGHT, SHEET_COLUMNS = 200, 3


def contact_sheet(
    predict: Callable[[Array], NDArray[np.float32]], shown: Sequence[tuple[Pair, str]]
) -> Array:
    """Pictures in a grid, each as image | truth | prediction under its title. [H, W, 3] RGB."""
    cells = []
    for pair, title in shown:
        rgb, matte, _ = pair.decode()
        prediction = np.round(predict(rgb) * 255).astype(np.uint8)
        cells.append(cell([rgb, np.dstack([matte] * 3), np.dstack([prediction] * 3)], title))
    return grid(cells, SHEET_COLUMNS)


def cell(views: Sequence[Array], title: str) -> Array:
    """[H, W, 3] pictures of one shape side by side, under a line of text."""
    width = max(1, round(views[0].shape[1] * SHEET_HEIGHT / views[0].shape[0]))
    row = np.hstack([cv2.resize(view, (width, SHEET_HEIGHT)) for view in views])
    line = np.full((20, row.shape[1], 3), 255, np.uint8)
    cv2.putText(line, title, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1)
    return np.vstack([line, row]).astype(np.uint8, copy=False)


def grid(cells: Sequence[Array], columns: int) -> Array:
    """Cells of one height in rows of ``columns``, the narrow ones filled up with white."""
    width = max(c.shape[1] for c in cells)
    filled = [np.pad(c, ((0, 0), (0, width - c.shape[1]), (0, 0)), constant_values=255) for c in cells]
    filled += [np.full_like(filled[0], 255)] * (-len(filled) % columns)
    rows = [np.hstack(filled[i : i + columns]) for i in range(0, len(filled), columns)]
    return np.vstack(rows).astype(np.uint8, copy=False)


def png(rgb: Array) -> bytes:
    _, packed = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return packed.tobytes()

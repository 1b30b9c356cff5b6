"""A bar chart as SVG: readable on light and dark pages, small enough to keep."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES, ROW, BAR = 760, 250, 80, 30, 18
# Seen well on white and on black.
OURS, OTHERS, TEXT = "#3b82f6", "#9ca3af", "#7d8590"


def bars(values: Mapping[str, float], *, title: str, unit: str, ours: str) -> str:
    """One horizontal bar per value, in order; those whose name begins with ``ours`` stand out."""
    largest, height = max(values.values()), ROW * (len(values) + 1)
    font = "font-family='system-ui, sans-serif' font-size='14'"
    middle = "dominant-baseline='central'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' role='img' "
        f"{font} fill='{TEXT}'>",
        f"<title>{escape(title)}</title>",
        f"<text x='0' y='{ROW - 10}' font-weight='600'>{escape(title)}</text>",
    ]
    for number, (name, value) in enumerate(values.items(), start=1):
        top = number * ROW + (ROW - BAR) / 2
        length = (WIDTH - LABELS - VALUES) * value / largest
        at, colour = f"y='{number * ROW + ROW / 2}' {middle}", OURS if name.startswith(ours) else OTHERS
        parts += [
            f"<text x='{LABELS - 10}' {at} text-anchor='end'>{escape(name)}</text>",
            f"<rect x='{LABELS}' y='{top}' width='{length:.1f}' height='{BAR}' rx='3' fill='{colour}'/>",
            f"<text x='{LABELS + length + 8:.1f}' {at}>{value:.1f} {unit}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"

"""A figure's interval as text and as a small SVG."""

from __future__ import annotations

from collections.abc import Callable

Ends = tuple[float, float]


def interval_text(value: float, ends: Ends | None, shown: Callable[[float], str]) -> str:
    """`12.6 ms (12 to 13.3)`; the figure alone if there is no interval.

    shown: formats a number with its unit
    """
    text = shown(value)
    if ends is None:
        return text
    low, high = (shown(float(f"{end:.3g}")) for end in ends)
    unit = text.partition(" ")[2]
    if all(end.partition(" ")[2] == unit for end in (low, high)):
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{text} ({low} to {high})"


def interval_svg(value: float, ends: Ends, title: str) -> str:
    """SVG of a line from 0 to 1.1 times the high end, with the interval as a bar and the figure as a dot."""
    scale = 100.0 / (1.1 * max(ends[1], value))
    low, high, at = (scale * number for number in (*ends, value))
    return (
        f'<svg class="interval" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"><title>{title}</title>'
        f'<rect class="track" x="0" y="3.5" width="100" height="1"/>'
        f'<rect class="bar" x="{low:.2f}" y="2" width="{max(high - low, 0.5):.2f}" height="4"/>'
        f'<rect class="dot" x="{at - 0.5:.2f}" y="0" width="1" height="8"/></svg>'
    )

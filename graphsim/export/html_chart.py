"""The layout and the escaping of text that all charts share."""

from __future__ import annotations

import html
from typing import Any

from graphsim.export.dot_labels import clean

Figure = dict[str, Any]


def layout_of(**more: Any) -> Figure:
    """A chart's layout: margins for the axes, a legend above, colours left to the page's theme."""
    base: Figure = {
        "margin": {"l": 64, "r": 16, "t": 8, "b": 44},
        "height": 320,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "normal"},
        "hovermode": "closest",
    }
    return base | more


def safe(text: str) -> str:
    """A text that Plotly shows unchanged, without interpreting markup."""
    return html.escape(clean(text), quote=False)

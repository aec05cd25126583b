"""Building blocks of all reports: templates, escaped text, cards, and Plotly's script.

The script is plotly.js-basic-dist-min 4.1.1 from npm; its MIT license is next to it in `assets`.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from graphsim.export.dot_labels import clean
from graphsim.result import plain


def filled(template: str, content: Mapping[str, str]) -> str:
    """A page with an asset as its main part, and each `{{name}}` replaced by its content.

    The frame, style, scripts and Plotly (its basic bundle, with lines and bars) are added.
    """
    known = {"style": asset("page.css"), "plotly": asset("plotly-basic.min.js"), "script": asset("page.js"), **content}
    return substituted(asset("frame.html").replace("{{main}}\n", asset(template)), known)


def substituted(page: str, content: Mapping[str, str]) -> str:
    """A text with each `{{name}}` replaced by its content, in which nothing is replaced."""
    pieces = re.split(r"\{\{(\w+)\}\}", page)
    return "".join(content[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def asset(name: str) -> str:
    """The text of an asset file of the package."""
    return resources.files("graphsim.export").joinpath("assets", name).read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """The value as JSON that is safe inside a script element."""
    text = json.dumps(plain(value), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def escaped(text: str) -> str:
    """A text escaped for the inside of an element."""
    return html.escape(clean(str(text)))


def card(name: str, label: str, value: float, shown: str, hint: str, *, bad: bool = False, drawn: str = "") -> str:
    """Markup of a headline figure.

    drawn: markup below it
    """
    figure = f'<strong id="figure-{name}" data-value="{value!r}">{escaped(shown)}</strong>'
    words = f'<span class="label">{escaped(label)}</span>{figure}{drawn}<span class="hint">{escaped(hint)}</span>'
    return f'<div class="card{" bad" if bad else ""}">{words}</div>'


def table_html(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of texts with a header; all are escaped."""
    top = "".join(f"<th>{escaped(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{escaped(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def listed(title: str, lines: Any) -> str:
    """A heading with a list below it; "" if there are no lines."""
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""

"""Runs the blocks of a handbook page as a reader would, and writes down what they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "graphsim" / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def run(page: Path) -> tuple[str, list[tuple[str, str]]]:
    """The page with what its blocks print now, and pairs of what is shown and what was printed."""
    namespace: dict = {}
    pairs: list[tuple[str, str]] = []

    def renewed(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match["code"], f"{page.name}, block {len(pairs) + 1}", "exec"), namespace)
        pairs.append((match["shown"] or "", printed.getvalue()))
        shown = f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else ""
        return f"```python\n{match['code']}```\n{shown}"

    return BLOCK.sub(renewed, page.read_text(encoding="utf-8")), pairs


def commands() -> list[str]:
    """The command lines of the handbook."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]

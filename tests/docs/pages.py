"""Runs the blocks of a handbook page as a reader would, and writes down what they print.

A `python` block runs in the page's own namespace; a `text` block right behind it is what it prints.
A `console` block holds commands behind `$ `; lines behind a command are what it prints, the first ones where they end
in a line `...`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
from pathlib import Path

from graphsim.cli import main
from tests.paths import ROOT

DOCS = ROOT / "graphsim" / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PAGES = sorted(DOCS.glob("*.md"))
PYTHON = r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<shown>.*?)^```\n)?"
CONSOLE = r"^```console\n(?P<commands>.*?)^```\n"
BLOCK = re.compile(f"{PYTHON}|{CONSOLE}", re.MULTILINE | re.DOTALL)
CUT = "..."


def run(page: Path) -> str:
    """The page with what its blocks print now; raises what a block raises."""
    namespace: dict = {}

    def renewed(match: re.Match[str]) -> str:
        if match["commands"] is not None:
            return f"```console\n{''.join(_sessions(match['commands']))}```\n"
        printed = _printed_by(match["code"], page.name, namespace)
        shown = f"\n```text\n{printed}```\n" if printed else ""
        return f"```python\n{match['code']}```\n{shown}"

    return BLOCK.sub(renewed, page.read_text(encoding="utf-8"))


def _printed_by(code: str, name: str, namespace: dict) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), namespace)
    return printed.getvalue()


def _sessions(block: str) -> list[str]:
    """Each command of a block, with what it prints now where the block shows it."""
    found = []
    for session in re.split(r"^(?=\$ )", block, flags=re.MULTILINE):
        if not session:
            continue
        assert session.startswith("$ "), f"a console block starts with a command behind '$ ', found {session!r}"
        command, _, shown = session.removeprefix("$ ").partition("\n")
        printed = command_output(command)
        lines = shown.splitlines()
        if lines and lines[-1] == CUT:
            printed = "".join(f"{line}\n" for line in [*printed.splitlines()[: max(len(lines) - 1, 1)], CUT])
        found.append(f"$ {command}\n{printed if lines else ''}")
    return found


def command_output(command: str) -> str:
    """What a terminal shows of a command line: one of graphsim's, or a script of the handbook's."""
    program, *arguments = shlex.split(command)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if program == "graphsim":
            assert main(arguments) == 0, command
        else:
            assert program == "python" and len(arguments) == 1, f"the handbook runs no '{command}'"
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    assert printed.getvalue(), f"'{command}' prints nothing"
    return printed.getvalue()


def unknown_blocks(page: Path) -> list[str]:
    """First lines of code blocks that no test runs; a `text` block has to stand right behind what prints it."""
    rest = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^```(?!\{)[^\n]+", rest, re.MULTILINE)


def ends_with_table(page: Path, head: str, rows: str) -> bool:
    """Whether a page ends with a table of this head and these rows; GRAPHSIM_UPDATE_DOCS=1 renews them."""
    text = page.read_text(encoding="utf-8")
    if os.environ.get("GRAPHSIM_UPDATE_DOCS"):
        before, _, _ = text.partition(head)
        text = before.rstrip("\n") + "\n\n" + head + rows
        page.write_text(text, encoding="utf-8")
    return text.endswith(head + rows)

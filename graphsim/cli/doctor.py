"""`graphsim doctor`: which packages are installed and which files are found."""

from __future__ import annotations

import argparse
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.printing import print_json, print_line, print_table
from graphsim.errors import install_text

EXAMPLES = """examples:
  graphsim doctor
  graphsim doctor --json
"""


_KINDS = {"hardware": "devices"}
"""What the counted files describe, where that is not the name of their folder."""


def add_commands(commands: Any) -> None:
    """Add `doctor`."""
    parser = shared.add_command(commands, "doctor", EXAMPLES)
    shared.add_json(parser)
    parser.set_defaults(command_function=doctor)


def doctor(options: argparse.Namespace) -> None:
    """Print the state of the installation."""
    from graphsim.cli.health import UNLOCKS, health

    found = health()
    if options.json:
        print_json(found.to_dict())
        return
    print_line(f"graphsim {found.graphsim or '(not installed)'}, Python {found.python}")
    print_line(", ".join(f"{name} {version or 'missing'}" for name, version in found.core.items()) + "\n")
    rows = [
        [name, version or "-", what, "" if version else _install(name, extra)]
        for (name, version), (extra, what) in zip(found.optional.items(), UNLOCKS.values(), strict=True)
    ]
    missing = "" if found.dot else "your system's package graphviz"
    rows.append(["GraphViz dot", "yes" if found.dot else "-", "drawing: export --to x.svg", missing])
    print_table(["optional", "version", "for", "to install"], rows)
    print_line("\n" + ", ".join(f"{count} {_KINDS.get(kind, kind)}" for kind, count in found.counts.items()))
    for kind, paths in found.folders.items():
        print_line(f"{kind}: {', '.join(paths)}")


def _install(name: str, extra: str) -> str:
    return install_text(extra) if extra else f"pip install {name}"

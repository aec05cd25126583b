"""Messages on arguments of Python functions, with the names of the command's options."""

from __future__ import annotations

import re
from collections.abc import Container

_ARGUMENTS = {
    "input_tokens": "input", "output_tokens": "output", "view_age_s": "view-age",
}  # fmt: skip
"""Options whose names are not those of the arguments."""

_START = re.compile(
    r"(?:Traffic: |serve: |sweep: |best: |best_training: |size_fleet: |size_fleet: choices\.|parallelism\.)?"
    r"([a-z]\w*)(?= = | holds )"
)
_CHOICE = re.compile(r"size_fleet: choices\.([a-z]\w*)(?= is not known)")
_ADAPTER = re.compile(r"lora\.([a-z]\w*)(?= = )")


def as_options(message: str, options: Container[str]) -> str:
    """A message that begins with an argument, such as `input_tokens = -1 …`, with the option: `--input = -1 …`.

    options: those of the command, with their dashes; other arguments keep their names
    """
    if (found := _ADAPTER.match(message)) and "--lora" in options:
        from graphsim.cli.adapters import LONG_NAMES

        return f"--lora: {LONG_NAMES.get(found[1], found[1])}{message[found.end() :]}"
    if (found := _CHOICE.match(message)) and "--choose" in options:
        return f"--choose {found[1]}{message[found.end() :]}"
    if found := _START.match(message):
        option = "--" + _ARGUMENTS.get(found[1], found[1]).replace("_", "-")
        return option + message[found.end() :] if option in options else message
    return message

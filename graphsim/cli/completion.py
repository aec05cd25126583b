"""`graphsim completion`: a script for shell completion of commands, options, models and devices."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.printing import print_json, print_line
from graphsim.errors import needs

SHELLS = ("bash", "zsh", "tcsh")
FILES = (
    "path", "to", "html", "data", "plot", "lora", "trace", "timeline", "measured", "output_json", "rows", "dot",
    "config",
)  # fmt: skip
"""Options whose values are completed as file names."""
EXAMPLES = """examples:
  graphsim completion bash > ~/.local/share/bash-completion/completions/graphsim
  graphsim completion zsh > ~/.zfunc/_graphsim
"""


def add_commands(commands: Any) -> None:
    """Add `completion`."""
    parser = shared.add_command(commands, "completion", EXAMPLES)
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    shared.add_json(parser)
    parser.set_defaults(command_function=completion)


def completion(options: argparse.Namespace) -> None:
    """Print the script; names of models, devices and engines are those in the catalogs when it is printed."""
    try:
        import shtab
    except ImportError:
        raise needs("shtab", "completion", "completion") from None
    top = options.all_commands()
    for action in _actions(top):
        _offer(action)
    script = shtab.complete(top, shell=options.shell)
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        print_line(script)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        yield action


def _offer(action: argparse.Action) -> None:
    """Set the completion of an argument that accepts any word: names from a catalog, or files."""
    from graphsim.hardware import list_hardware
    from graphsim.lora.profile import list_engines
    from graphsim.models.loading import list_models
    from graphsim.training.methods import list_methods
    from graphsim.training.optimizers import list_optimizers
    from graphsim.training.recipe import list_recipes

    catalogs = {
        "model": list_models, "models": list_models, "hardware": list_hardware, "engine": list_engines,
        "method": list_methods, "recipe": list_recipes, "optimizer": list_optimizers,
    }  # fmt: skip
    if action.choices is None and action.dest in catalogs:
        action.choices = catalogs[action.dest]()
    elif action.dest in FILES:
        action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined]

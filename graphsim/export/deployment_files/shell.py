"""A command as a readable shell script."""

from __future__ import annotations

import shlex

import yaml

from graphsim.export.deployment_files.commands import Config

CONFIG_FILE = "config.yaml"
_END = "END_OF_CONFIG"


def script(arguments: list[str], config: Config) -> str:
    """The command with one flag per line and every argument quoted, after the configuration file that it reads."""
    lines: list[list[str]] = [[]]
    for argument in [*arguments, *(["--config", CONFIG_FILE] if config else [])]:
        if argument.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(argument))
    command = " \\\n  ".join(" ".join(line) for line in lines if line) + "\n"
    if not config:
        return command
    return f"cat > {CONFIG_FILE} <<'{_END}'\n{yaml.safe_dump(config, sort_keys=False)}{_END}\n{command}"

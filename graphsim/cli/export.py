"""`graphsim export`: the graph of a step as a picture, a table or text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.printing import print_line
from graphsim.errors import ConfigError, choices_text

EXAMPLES = """examples:
  graphsim export llama-3.1-8b --hardware h100-sxm --lora rank=16,targets=q_proj+v_proj --to layer.svg
  graphsim export llama-2-7b --hardware l4 --phase decode --to decode.csv
"""
SUFFIXES = (".dot", ".svg", ".png", ".pdf", ".csv", ".txt", ".json")


def add_commands(commands: Any) -> None:
    """Add `export`."""
    parser = shared.add_command(commands, "export", "write the graph of a step as DOT, picture, CSV or text", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    parser.add_argument("--phase", choices=("prefill", "decode"), default="prefill", help="which step (prefill)")
    parser.add_argument("--expand", action="store_true", help="spell every layer out")
    parser.add_argument("--to", required=True, metavar="FILE", help=f"file to write: {', '.join(SUFFIXES)}")
    parser.set_defaults(command_function=export)


def export(options: argparse.Namespace) -> None:
    """Annotate the graph and write it in the format that the file's suffix names."""
    from graphsim.critical import schedule
    from graphsim.estimate import annotate, build_graph
    from graphsim.export.dot import render, to_dot
    from graphsim.export.node_link import to_json
    from graphsim.export.table import frame_of
    from graphsim.graph import to_text

    path = Path(options.to)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--to {path}: '{path.suffix}' is not a known suffix; {choices_text(path.suffix, SUFFIXES)}")
    graph = build_graph(
        options.model,
        options.phase,
        options.batch,
        options.input,
        parallelism=shared.parallelism(options),
        lora=shared.lora_config(options.lora),
        precision=options.precision,
        expand=options.expand,
    )
    graph = schedule(annotate(graph, options.hardware, options.cost))
    try:
        if path.suffix == ".dot":
            to_dot(graph, path)
        elif path.suffix == ".csv":
            frame_of(graph).to_csv(path, index=False)
        elif path.suffix == ".json":
            to_json(graph, path)
        elif path.suffix == ".txt":
            path.write_text(to_text(graph) + "\n", encoding="utf-8")
        else:
            render(to_dot(graph), path)
    except OSError as error:
        raise ConfigError(f"--to {path}: cannot be written ({error.strerror})") from None
    print_line(str(path))

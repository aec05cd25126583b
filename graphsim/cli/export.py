"""`graphsim export`: the graph of a step as picture, table or text; an estimate as report, timeline or trace."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.printing import print_json, print_line
from graphsim.errors import ConfigError, choices_text

EXAMPLES = """examples:
  graphsim export llama-3.1-8b --hardware h100-sxm --lora rank=16,targets=q_proj+v_proj --to layer.svg
  graphsim export llama-2-7b --hardware l4 --phase decode --to decode.csv
  graphsim export llama-2-7b --hardware l4 --to timeline.trace.json
  graphsim export llama-2-7b --hardware l4 --to report.html
"""
SUFFIXES = (".dot", ".svg", ".png", ".pdf", ".csv", ".txt", ".json", ".trace.json", ".html", ".et")
"""What a file may be called; `.json` is the graph, `.trace.json` a timeline for Perfetto, `.et` Chakra traces."""


def add_commands(commands: Any) -> None:
    """Add `export`."""
    parser = shared.add_command(commands, "export", "write a graph, a timeline, a trace or a report", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    parser.add_argument("--phase", choices=("prefill", "decode"), default="prefill", help="which step (prefill)")
    parser.add_argument("--expand", action="store_true", help="spell every layer out")
    parser.add_argument("--to", required=True, metavar="FILE", help=f"file to write: {', '.join(SUFFIXES)}")
    shared.add_json(parser)
    parser.set_defaults(command_function=export)


def export(options: argparse.Namespace) -> None:
    """Write what the file's suffix names."""
    path = Path(options.to)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--to {path}: '{path.suffix}' is not a known suffix; {choices_text(path.suffix, SUFFIXES)}")
    if path.name.endswith((".trace.json", ".html", ".et")):
        written = _write_estimate(options, path)
    else:
        _write_graph(options, path)
        written = [path]
    if options.json:
        print_json({"written": [str(one) for one in written]})
        return
    for one in written:
        print_line(str(one))


def _write_estimate(options: argparse.Namespace, path: Path) -> list[Path]:
    from graphsim.export.chakra import to_chakra
    from graphsim.export.html import to_html
    from graphsim.export.trace import to_trace
    from graphsim.simulation import simulate

    estimate = simulate(shared.deployment(options), **shared.requests(options))
    if path.suffix == ".et":
        return to_chakra(estimate, path.with_suffix(""), phase=options.phase)
    if path.suffix == ".html":
        to_html(estimate, path)
    else:
        to_trace(estimate, path, expand=options.expand)
    return [path]


def _write_graph(options: argparse.Namespace, path: Path) -> None:
    from graphsim.display.operators import frame_of
    from graphsim.export.dot import render, to_dot
    from graphsim.export.node_link import to_json
    from graphsim.files.written import write_text
    from graphsim.graph import to_text
    from graphsim.graph.critical import schedule
    from graphsim.simulation import annotate, build_graph

    deployment = shared.deployment(options)
    graph = build_graph(
        deployment, options.phase, batch=options.batch, input_tokens=options.input, expand=options.expand
    )
    graph = schedule(annotate(graph, options.hardware, options.cost))
    if path.suffix == ".dot":
        to_dot(graph, path)
    elif path.suffix == ".csv":
        write_text(path, frame_of(graph).to_csv(index=False))
    elif path.suffix == ".json":
        to_json(graph, path)
    elif path.suffix == ".txt":
        write_text(path, to_text(graph) + "\n")
    else:
        render(to_dot(graph), path)

"""`graphsim export`: a step's graph as an image, table or text; an estimate as a report, timeline or trace; the command
or manifest that starts a deployment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graphsim.cli import options as shared
from graphsim.cli.outputs import OutFile, report_written
from graphsim.cli.printing import print_json, print_line
from graphsim.errors import ConfigError, choices_text

EXAMPLES = """examples:
  graphsim export llama-3.1-8b --hardware h100-sxm --lora rank=16,targets=q_proj+v_proj --to layer.svg
  graphsim export llama-2-7b --hardware l4 --phase decode --to decode.csv
  graphsim export llama-2-7b --hardware l4 --to timeline.trace.json
  graphsim export llama-2-7b --hardware l4 --to report.html
  graphsim export llama-3.1-70b --hardware h100-sxm --tp 4 --format vllm --max-num-seqs 128
  graphsim export llama-3.1-8b --hardware l40s --lora rank=16,max_loras=8 --format kubernetes --replicas 3 --to it.yaml
"""
SUFFIXES = (".dot", ".svg", ".png", ".pdf", ".csv", ".txt", ".json", ".trace.json", ".html", ".et")
"""Suffixes of files; `.json` is the graph, `.trace.json` a timeline for Perfetto, `.et` Chakra traces."""


def add_commands(commands: Any) -> None:
    """Add `export`."""
    parser = shared.add_command(commands, "export", EXAMPLES)
    shared.add_model(parser)
    shared.add_requests(parser)
    shared.add_deployment(parser)
    parser.add_argument("--phase", choices=("prefill", "decode"), default="prefill", help="which step (prefill)")
    parser.add_argument("--expand", action="store_true", help="show every layer instead of a repeat")
    parser.add_argument(
        "--to", type=OutFile(), metavar="FILE", help=f"file to write: {', '.join(SUFFIXES)}; any name with --format"
    )
    _add_deployment_file(parser)
    shared.add_json(parser)
    parser.hands_on = True  # type: ignore[attr-defined]
    parser.set_defaults(command_function=export, known=tuple(parser._option_string_actions), handed_on={})


def _add_deployment_file(parser: argparse.ArgumentParser) -> None:
    """Add --format and the options that it requires."""
    shared.add_speculation(parser)
    parser.add_argument(
        "--format",
        metavar="F",
        help="in place of a graph, a script or manifest that starts the deployment: vllm, sglang, trtllm, kubernetes",
    )
    parser.add_argument("--replicas", type=shared.whole(1), default=1, metavar="N", help="servers of a manifest (1)")
    parser.add_argument("--port", type=shared.whole(1), default=8000, metavar="N", help="port of a server (8000)")
    parser.add_argument("--model-id", metavar="ID", help="what the engine loads, by default the catalog's first id")
    parser.add_argument("--draft-id", metavar="ID", help="the draft that the engine loads")
    parser.add_argument("--image", metavar="IMAGE", help="the container of a manifest")
    parser.add_argument("--name", metavar="NAME", help="name of a manifest's objects")
    parser.add_argument(
        "--adapter", action="append", default=[], dest="adapters", metavar="NAME=PATH",
        help="a registered adapter; may be given several times",
    )  # fmt: skip


def export(options: argparse.Namespace) -> None:
    """Write the export that the file's suffix names, or the command or manifest that starts the deployment."""
    if options.format is not None:
        _deployment_file(options)
        return
    _refuse_settings(options)
    path = Path(options.to)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"--to {path}: '{suffix}' is not a known suffix; {choices_text(suffix, SUFFIXES)}")
    if path.name.lower().endswith((".trace.json", ".html", ".et")):
        written = _write_estimate(options, path)
    else:
        _write_graph(options, path)
        written = [path]
    report_written(options, written)
    if options.json:
        print_json({"written": [str(one) for one in written]})


def _refuse_settings(options: argparse.Namespace) -> None:
    """Raise ConfigError for server settings without --format, and for a missing output file."""
    given = [f"--{flag}" for flag in options.handed_on]
    defaults: dict[str, Any] = {
        "speculation": None, "replicas": 1, "port": 8000, "model_id": None, "draft_id": None, "image": None,
        "name": None, "adapters": [],
    }  # fmt: skip
    given += [f"--{name.replace('_', '-')}" for name, usual in defaults.items() if getattr(options, name) != usual]
    if given:
        raise ConfigError(f"{', '.join(given)} needs --format, which writes how a server is started")
    if options.to is None:
        raise ConfigError(f"--to FILE is missing; {choices_text('', SUFFIXES)}; or --format")


def _deployment_file(options: argparse.Namespace) -> None:
    """Print or write the command or manifest."""
    from graphsim.cli.engine_flags import engine_limits
    from graphsim.export.deployment_files import deployment_file

    text = deployment_file(
        shared.deployment(options), options.format, options.to, limits=engine_limits(options.handed_on, options.known),
        speculation=shared.speculation(options), model_id=options.model_id, draft_id=options.draft_id,
        adapters=dict(map(_adapter, options.adapters)), replicas=options.replicas, port=options.port,
        image=options.image, name=options.name,
    )  # fmt: skip
    report_written(options, [options.to])
    if options.json:
        print_json({"format": options.format, "text": text, "written": [] if options.to is None else [options.to]})
    elif options.to is None:
        print_line(text.rstrip("\n"))


def _adapter(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise ConfigError(f"--adapter {text}: expected NAME=PATH")
    return name, path


def _write_estimate(options: argparse.Namespace, path: Path) -> list[Path]:
    from graphsim.export.chakra import to_chakra
    from graphsim.export.html import to_html
    from graphsim.export.trace import to_trace
    from graphsim.simulation import simulate

    estimate = simulate(shared.deployment(options), **shared.requests(options))
    if path.suffix.lower() == ".et":
        return to_chakra(estimate, path.with_suffix(""), phase=options.phase)
    if path.suffix.lower() == ".html":
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
    suffix = path.suffix.lower()
    if suffix == ".dot":
        to_dot(graph, path)
    elif suffix == ".csv":
        write_text(path, frame_of(graph).to_csv(index=False))
    elif suffix == ".json":
        to_json(graph, path)
    elif suffix == ".txt":
        write_text(path, to_text(graph) + "\n")
    else:
        render(to_dot(graph), path)

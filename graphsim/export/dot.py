"""A graph as GraphViz DOT: a box per block, shapes on the edges, adapters and the critical path highlighted.

The language: https://graphviz.org/doc/info/lang.html; HTML-like labels: https://graphviz.org/doc/info/shapes.html#html
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx

from graphsim.display.nodes import Entry, is_critical, number, require, shape_text
from graphsim.display.palette import CRITICAL, FAINT, INK, MUTED, TINTS
from graphsim.errors import ConfigError
from graphsim.export.dot_labels import group_label, header, identifiers, node_label, part_text, tooltip
from graphsim.export.flat import Edge, Flat, Group, flatten
from graphsim.files.present import path_of
from graphsim.files.written import whole, write_text
from graphsim.ops import Collective, Input, KvCache
from graphsim.ops.kinds import Kind, kind_of

FONT = "Helvetica,Arial,sans-serif"
_DEFAULTS = f"""
  graph [rankdir=TB, fontname="{FONT}", fontcolor="{INK}", labelloc=t, nodesep=0.3, ranksep=0.35, pad=0.3,
         bgcolor="#ffffff", newrank=true, compound=true];
  node [fontname="{FONT}", fontsize=12, fontcolor="{INK}", shape=box, style="rounded,filled", margin="0.12,0.06"];
  edge [fontname="{FONT}", fontsize=9, fontcolor="{MUTED}", color="{FAINT}", arrowsize=0.6, penwidth=1.1];
"""


@dataclass(frozen=True, slots=True)
class Look:
    """Deviations of a node's appearance from the default of its operation.

    attributes: DOT attributes
    note: markup below its name
    label: markup that replaces the whole label
    """

    attributes: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    label: str = ""


PLAIN = Look()


@dataclass(frozen=True, slots=True)
class Wire:
    """An edge of a picture that carries no value.

    text: its DOT attributes
    """

    source: str
    target: str
    text: str


def to_dot(graph: nx.DiGraph, path: str | Path | None = None, *, title: str = "", scenario: int = 0) -> str:
    """DOT text of any graph, also written to `path` if given; `dot -Tsvg` or `render` draws it.

    A repeat is a box with its count. Edges show the shape of the data. Adapter nodes are orange, communication is a
    purple octagon. An annotated graph shows time and bound of every node, and its critical path in red, dashed where an
    operation waits only for its stream.
    scenario: index of the scenario, where numbers are arrays. Raises ConfigError for a scenario that does not exist, or
        if `path` is not writable.
    """
    require("to_dot", graph, nx.DiGraph)
    flat = flatten(graph, scenario)
    text = document(flat, scenario, header(flat, title))
    if path is not None:
        write_text(path, text)
    return text


def document(
    flat: Flat, scenario: int, head: str, look: Callable[[Entry], Look] | None = None, more: Iterable[Wire] = ()
) -> str:
    """DOT text of a flattened graph.

    head: markup above the picture
    look: the appearance of a node, by its name
    more: edges in addition to those that carry values
    """
    ids = identifiers(flat)
    lines = ["digraph graphsim {", _DEFAULTS.strip("\n"), f"  label=<{head}>;", ""]
    lines += _nodes(flat, ids, scenario, look or (lambda _: PLAIN))
    lines += ["", *(f"  {_edge(edge, flat, ids)}" for edge in flat.edges)]
    lines += [f"  {ids[wire.source]} -> {ids[wire.target]} [{wire.text}];" for wire in more]
    return "\n".join([*lines, "}", ""])


def render(dot: str, path: str | Path) -> Path:
    """Draw DOT text with GraphViz; the file's suffix (.svg, .png, .pdf) is the format.

    Raises ConfigError if GraphViz is not installed, does not know the format or cannot read the text.
    """
    target = path_of(path)
    program = shutil.which("dot")
    if program is None:
        raise ConfigError(
            "GraphViz's program 'dot' is not installed; get it with 'apt install graphviz', 'brew install graphviz' "
            "or from https://graphviz.org/download"
        )
    suffix = target.suffix.lower().removeprefix(".")
    if not suffix.isalnum():
        raise ConfigError(f"path = '{target}' has no suffix that names a format; write .svg, .png or .pdf")
    density = ["-Gdpi=110"] if suffix == "png" else []
    with whole(target) as file:
        done = subprocess.run(  # noqa: S603
            [program, f"-T{suffix}", *density, "-o", str(file)], input=dot.encode(), capture_output=True, check=False
        )
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise ConfigError(f"GraphViz could not draw '{target}': {reason[0] if reason else 'no reason given'}")
    return target


def _nodes(flat: Flat, ids: dict[str, str], scenario: int, look: Callable[[Entry], Look]) -> list[str]:
    """DOT lines of the nodes inside their nested boxes, in launch order."""
    lines: list[str] = []
    tree: dict[tuple[Group, ...], list[str]] = {(): []}
    for name, around in flat.groups.items():
        for depth in range(len(around) + 1):
            tree.setdefault(around[:depth], [])
        tree[around].append(name)
    steady = [entry.data for entry in flat.nodes.values() if not entry.op.once]
    longest = max((number(data.get("latency_s", 0.0), scenario) for data in steady), default=0.0)
    numbers = {around: i for i, around in enumerate(tree)}

    def write(around: tuple[Group, ...]) -> None:
        indent = "  " * (len(around) + 1)
        for name in tree[around]:
            entry = flat.nodes[name]
            lines.append(indent + _node(entry, ids[name], longest, scenario, look(entry)))
        for inner in [key for key in tree if len(key) == len(around) + 1 and key[:-1] == around]:
            lines.append(f"{indent}subgraph cluster_{numbers[inner]} {{")
            colour = "#f8fafc" if len(inner) % 2 else "#ffffff"
            lines.append(
                f'{indent}  label=<{group_label(inner[-1])}>; labeljust=l; style="rounded,filled"; '
                f'color="#cbd5e1"; fillcolor="{colour}"; penwidth=1.2; margin=14;'
            )
            write(inner)
            lines.append(indent + "}")

    write(())
    return lines


def _node(entry: Entry, identifier: str, longest: float, scenario: int, look: Look) -> str:
    op, kind = entry.op, kind_of(entry.op)
    tint = TINTS[kind]
    critical = bool(is_critical(entry.data, scenario))
    attributes = {
        "fillcolor": f'"{tint.fill}"',
        "color": f'"{CRITICAL if critical else tint.line}"',
        "penwidth": "2.2" if critical else "1.8" if kind in (Kind.LORA, Kind.MERGE) else "1",
        "tooltip": tooltip(entry, scenario),
        "label": f"<{look.label or node_label(entry, longest, scenario, look.note)}>",
    }
    if isinstance(op, Collective):
        attributes |= {"shape": "octagon", "style": "filled", "margin": '"0.02,0.02"'}
    elif isinstance(op, KvCache):
        attributes |= {"shape": "cylinder", "style": "filled"}
    elif isinstance(op, Input):
        attributes |= {"shape": "ellipse", "style": "filled", "margin": '"0.02,0.0"'}
    if op.once:
        attributes["style"] = '"rounded,filled,dashed"'
    attributes |= look.attributes
    return f"{identifier} [{', '.join(f'{key}={value}' for key, value in attributes.items())}];"


def _edge(edge: Edge, flat: Flat, ids: dict[str, str]) -> str:
    attributes: dict[str, str] = {}
    kinds = {kind_of(flat.nodes[name].op) for name in (edge.source, edge.target)}
    if flat.nodes[edge.source].op.once:
        attributes = {"style": "dashed", "color": f'"{TINTS[Kind.MERGE].line}"', "label": '"once"'}
    elif edge.shape:
        attributes = {"label": f"<{part_text(edge.parts, shape_text(edge.shape))}>"}
        if Kind.LORA in kinds:
            attributes["color"] = f'"{TINTS[Kind.LORA].line}"'
    if edge.critical:
        attributes |= {"color": f'"{CRITICAL}"', "penwidth": "2.2"}
    if edge.stream:
        attributes |= {"style": "dashed", "constraint": "false", "penwidth": "1.4"}
    ends = ids[edge.source], ids[edge.target]
    if edge.upwards:
        ends, attributes = ends[::-1], attributes | {"dir": "back"}
    text = ", ".join(f"{key}={value}" for key, value in attributes.items())
    return f"{ends[0]} -> {ends[1]} [{text}];"

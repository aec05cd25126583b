"""One layer of the model as inline SVG: boxes with shapes, times and bounds; a script adds zoom and tooltips."""

from __future__ import annotations

import html

import networkx as nx

from graphsim.display.nodes import Entry, bound_of, dims_text, is_critical, number, shape_text
from graphsim.display.palette import BOUND_COLOURS, TINTS
from graphsim.display.training import is_trained
from graphsim.export.dot_labels import clean
from graphsim.export.flat import Edge, Flat, Group, flatten
from graphsim.export.layout import Positions, place
from graphsim.ops import Collective, Gemm, Input, KeptValue
from graphsim.ops.kinds import Kind, kind_of
from graphsim.units import amount_text, bytes_text, count_text, seconds_text

HEIGHT, ROW = 54.0, 104.0
EdgeLabel = tuple[str, tuple[str, ...], tuple[float, ...]]
"""Source, parts and shape of an edge's value; each combination is labelled once."""


def layer_svg(graph: nx.DiGraph, scenario: int = 0, repeat: str | None = None) -> tuple[str, str]:
    """Caption and picture of a repeat, or of the whole graph if it has no repeat.

    repeat: name of the repeat's node; None for the longest repeat on the critical path
    """
    flat = flatten(graph, scenario)
    group = _longest(flat) if repeat is None else _repeats(flat)[repeat]
    names = [name for name, around in flat.groups.items() if group is None or group in around]
    edges = [e for e in flat.edges if e.source in names and e.target in names]
    placed = place(
        {name: _width(flat.nodes[name], scenario) for name in names},
        [(e.source, e.target) for e in edges if not e.stream],
        row=ROW,
    )
    steady = [flat.nodes[name].data for name in names if not flat.nodes[name].op.once]
    longest = max((number(data.get("latency_s", 0.0), scenario) for data in steady), default=0.0)
    said: set[EdgeLabel] = set()
    drawn = [_edge(edge, placed, flat, said) for edge in edges]
    parts = [path for path, _ in drawn]
    parts += [_node(flat.nodes[name], placed, longest, scenario) for name in names]
    parts += [label for _, label in drawn]  # last, so that no curve covers them
    box = f"-20 0 {placed.width + 40:.0f} {placed.height:.0f}"
    caption = _caption(group)
    head = f'<svg class="layer" viewBox="{box}" data-box="{box}" role="group" aria-label="{_text(caption)}">'
    return caption, f'{head}<g class="scene">{"".join(parts)}</g></svg>'


def _repeats(flat: Flat) -> dict[str, Group]:
    return {g.key: g for around in flat.groups.values() for g in around if g.repeat is not None}


def _longest(flat: Flat) -> Group | None:
    """The longest repeat on the critical path, or of all repeats if none is on it."""
    repeats = _repeats(flat)
    critical = {g.key for name in flat.path for g in flat.groups[name]}
    found = [group for key, group in repeats.items() if key in critical] or list(repeats.values())
    return max(found, key=lambda group: group.latency_s or 0.0, default=None)


def _caption(group: Group | None) -> str:
    if group is None or group.repeat is None:
        return "the whole step"
    total = "" if group.latency_s is None else f", {seconds_text(group.latency_s)} in all"
    turns = f": one of {group.repeat.times} turns" if group.repeat.times > 1 else ""
    return f"{group.label}{turns}{total}"


def _what(entry: Entry, scenario: int) -> str:
    op = entry.op
    if isinstance(op, KeptValue):
        return f"{bytes_text(number(op.kept_bytes, scenario))} kept"
    if isinstance(op, Gemm):
        m, k, n = (amount_text(number(size, scenario)) for size in (op.m, op.k, op.n))
        return f"{m} × {k} → {n}"
    return type(op).__name__ if isinstance(op, Collective) else op.op_type.name.lower().replace("_", " ")


def _width(entry: Entry, scenario: int) -> float:
    if isinstance(entry.op, Input):
        return 70.0
    return max(132.0, 24.0 + 7.4 * min(len(entry.label), 40), 24.0 + 6.2 * len(_what(entry, scenario)))


def _text(text: str) -> str:
    return html.escape(clean(text).replace("\n", "↵") or "(no name)")


def hover_lines(entry: Entry, scenario: int) -> list[str]:
    """Lines of an operation's tooltip."""
    op, work, data = entry.op, entry.op.work(), entry.data
    runs = f"once for each of {entry.times}" if op.once else f"runs {entry.times} times"
    lines = [f"{type(op).__name__} ({op.op_type.name}), {runs if entry.times > 1 else 'runs once'}"]
    lines.append(dims_text(op, scenario))
    moved = bytes_text(number(work.memory_bytes, scenario))
    lines.append(f"{count_text(number(work.flops, scenario))} flops, {moved} moved, operands {op.residency.name}")
    if number(work.message_bytes, scenario) > 0:
        lines.append(f"{bytes_text(number(work.message_bytes, scenario))} sent")
    if "latency_s" in data:
        lines.append(f"{seconds_text(number(data['latency_s'], scenario))}, bound by {bound_of(data, scenario)}")
    if "slack_s" in data:
        slack = max(number(data["slack_s"], scenario), 0.0)
        lines.append("on the critical path" if is_critical(data, scenario) else f"slack {seconds_text(slack)}")
    if op.once:
        lines.append("before serving, not in every step")
    return [line for line in lines if line]


def _node(entry: Entry, placed: Positions, longest: float, scenario: int) -> str:
    x, y = placed.nodes[entry.name]
    width, kind = _width(entry, scenario), kind_of(entry.op)
    tint = TINTS[kind]
    classes = ["node", "critical" if is_critical(entry.data, scenario) else "", "once" if entry.op.once else ""]
    classes += ["trained" if is_trained(entry.op) else "", "kept" if isinstance(entry.op, KeptValue) else ""]
    title = html.escape("\n".join(clean(line) for line in [entry.label, *hover_lines(entry, scenario)]), quote=True)
    colours = f'style="--fill:{tint.fill};--line:{tint.line}"'
    head = (
        f'<g class="{" ".join(filter(None, classes))}" {colours} tabindex="0" data-node="{_text(entry.name)}" '
        f'data-tip="{title}" transform="translate({x:.1f} {y:.1f})">'
    )
    if isinstance(entry.op, Input):
        return f'{head}<ellipse rx="34" ry="16"/><text class="small" dy="4">{_text(entry.label)}</text></g>'
    round_ = 22 if kind is Kind.COLLECTIVE else 9
    body = (
        f'<rect x="{-width / 2:.1f}" y="{-HEIGHT / 2}" width="{width:.1f}" height="{HEIGHT}" rx="{round_}"/>'
        f'<text class="name" dy="-10">{_text(entry.label[:40])}</text>'
        f'<text class="small" dy="5">{_text(_what(entry, scenario))}</text>'
    )
    if "latency_s" in entry.data:
        seconds, bound = number(entry.data["latency_s"], scenario), bound_of(entry.data, scenario)
        share = 0.0 if longest <= 0 else min(seconds / longest, 1.0) * (width - 24)
        body += (
            f'<text class="small" dy="18">{seconds_text(seconds)} · {_text(bound)}</text>'
            f'<rect class="bar" x="{-(width - 24) / 2:.1f}" y="22" width="{share:.1f}" height="3" '
            f'fill="{BOUND_COLOURS[bound]}"/>'
        )
    return f"{head}{body}</g>"


def _edge(edge: Edge, placed: Positions, flat: Flat, said: set[EdgeLabel]) -> tuple[str, str]:
    """Markup of an edge's curve and of its label."""
    bends = placed.edges.get((edge.source, edge.target))
    classes = " ".join(
        name for name, holds in (
            ("edge", True),
            ("critical", edge.critical),
            ("stream", edge.stream),
            ("once", flat.nodes[edge.source].op.once),
        ) if holds
    )  # fmt: skip
    start, end = placed.nodes[edge.source], placed.nodes[edge.target]
    if bends is None or edge.stream:
        bends = [start, end]
    top = 16.0 if isinstance(flat.nodes[edge.source].op, Input) else HEIGHT / 2
    path = _curve(bends, top, downwards=end[1] > start[1])
    value = (edge.source, edge.parts, edge.shape)
    silent = not edge.shape or value in said or flat.nodes[edge.source].op.once
    siblings = sum(source == edge.source for source, _ in placed.edges)
    earlier = sum(source == edge.source for source, _, _ in said)
    along = (0.7, 0.5, 0.86)[earlier % 3] if siblings > 1 else 0.34
    left = (bends[1][0] < bends[0][0] - 20) if siblings > 1 else (bends[1][0] > bends[0][0] + 20)  # outer side
    label = "" if silent else _edge_label(edge, bends, along, left)
    said.add(value)
    return f'<path class="{classes}" d="{path}"/>', label


def _edge_label(edge: Edge, bends: list[tuple[float, float]], t: float, left: bool) -> str:
    """The label of an edge's value, next to the edge at the fraction `t` of its first segment."""
    (x0, y0), (x1, y1) = bends[0], bends[1]
    x, y = x0 + (x1 - x0) * t * t * (3 - 2 * t), y0 + HEIGHT / 2 + (y1 - y0 - HEIGHT) * t
    text = (" + ".join(edge.parts) + ": " if edge.parts else "") + shape_text(edge.shape)
    side = 'class="shape left"' if left else 'class="shape"'
    return f'<text {side} x="{x + (-6 if left else 6):.1f}" y="{y + 3:.1f}">{_text(text)}</text>'


def _curve(bends: list[tuple[float, float]], top: float, *, downwards: bool) -> str:
    points = list(bends)
    if downwards:
        points[0] = (points[0][0], points[0][1] + top)
        points[-1] = (points[-1][0], points[-1][1] - HEIGHT / 2)
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        half = (y1 - y0) / 2 if downwards else 30.0
        text += f"C{x0:.1f} {y0 + half:.1f} {x1:.1f} {y1 - half:.1f} {x1:.1f} {y1:.1f}"
    return text

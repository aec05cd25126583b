"""Texts of a DOT picture: identifiers, HTML-like labels and tooltips, safe for any node name."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from graphsim.display.nodes import Entry, bound_of, number, number_text
from graphsim.display.palette import BOUND_COLOURS, CRITICAL, FAINT, MUTED, TINTS
from graphsim.export.flat import Flat, Group
from graphsim.ops import Attention, Collective, Elementwise, Gemm, Input, Op
from graphsim.ops.kinds import Kind, kind_of
from graphsim.ops.lora_kernels import LoraExpand, LoraShrink
from graphsim.units import bytes_text, count_text, seconds_text

LONGEST_NAME = 48
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_QUIET = (
    "launches", "tiles", "empty_tiles", "tile_clocks", "empty_tile_clocks", "units", "window", "sinks", "vectors",
    "reads", "steps", "kept_tokens", "new_tokens", "rows",
)  # fmt: skip
"""Dimensions that a picture omits if they have these usual values; tooltips have all."""


def clean(text: str) -> str:
    """The text without characters that XML or UTF-8 cannot represent."""
    return _UNPRINTABLE.sub("\ufffd", text)


def quoted(text: str) -> str:
    """A quoted DOT string; backslashes are doubled, so that GraphViz sees no escape sequence."""
    escaped = clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'


def markup(text: str, longest: int = LONGEST_NAME) -> str:
    """A text inside an HTML-like label, backslashes doubled; line breaks and an empty text are made visible."""
    shown = clean(text).replace("\r\n", "↵").replace("\n", "↵").replace("\r", "↵").replace("\t", " ")
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return html.escape(shown).replace("\\", "\\\\") if shown.strip() else "(no name)"


def identifiers(flat: Flat) -> dict[str, str]:
    """A DOT identifier for every node: its full name, quoted, with a number if cleaning made two names equal."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in flat.nodes:
        identifier, again = quoted(name), 2
        while identifier in taken:
            identifier, again = quoted(f"{name} ({again})"), again + 1
        taken.add(identifier)
        found[name] = identifier
    return found


def small(text: str, colour: str = MUTED, size: int = 9) -> str:
    """A run of small text; `text` is markup already."""
    return f'<FONT POINT-SIZE="{size}" COLOR="{colour}">{text}</FONT>'


def node_label(entry: Entry, longest: float, scenario: int, note: str = "") -> str:
    """Label of a node: name, type, dimensions, time, bound and a bar proportional to the longest operation.

    note: markup of a further line below the name
    """
    op = entry.op
    name = entry.label
    if isinstance(op, Input):
        return small(f"<I>{markup(name)}</I>", size=10)
    rows = [f"<B>{markup(name)}</B>", note, small(_what(op, scenario))]
    if "latency_s" in entry.data:
        seconds = number(entry.data["latency_s"], scenario)
        bound = bound_of(entry.data, scenario)
        colour = BOUND_COLOURS.get(bound, FAINT)
        rows.append(small(f'{seconds_text(seconds)} <FONT COLOR="{colour}">● {markup(bound)}</FONT>'))
        rows.append(_bar(seconds / longest if longest else 0.0, colour))
    cells = "".join(f"<TR><TD>{row}</TD></TR>" for row in rows if row)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>'


def _bar(share: float, colour: str) -> str:
    width = round(110 * min(share, 1.0))
    if width < 1:
        return ""
    cell = f'<TD FIXEDSIZE="TRUE" WIDTH="{width}" HEIGHT="4" BGCOLOR="{colour}"></TD>'
    rest = f'<TD FIXEDSIZE="TRUE" WIDTH="{110 - width}" HEIGHT="4" BGCOLOR="#e2e8f0"></TD>' if width < 110 else ""
    frame = 'BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0" FIXEDSIZE="TRUE" WIDTH="110" HEIGHT="4"'
    return f"<TABLE {frame}><TR>{cell}{rest}</TR></TABLE>"


def _what(op: Op, scenario: int) -> str:
    """The operation's type and its dimensions, except _QUIET ones."""
    sizes = {name: number(value, scenario) for name, value in op.dims().items()}
    weights = getattr(op, "weights", None)
    if isinstance(op, Gemm):
        text = f"{number_text(sizes['m'])} × {number_text(sizes['k'])} → {number_text(sizes['n'])}"
        text += f"  {weights.name}" if weights else ""
    elif isinstance(op, LoraShrink | LoraExpand):
        text = _kernel(op, sizes)
    elif op.adapter and {"n", "k", "rank"} <= sizes.keys():
        text = f"W {number_text(sizes['n'])} × {number_text(sizes['k'])}, rank {number_text(sizes['rank'])}"
    elif op.joins_base:
        rows = sizes["rows"] if "rows" in sizes else sizes["m"]
        text = f"{number_text(rows)} × {number_text(sizes['n'] * sizes.get('share', 1.0))}"
    elif isinstance(op, Attention):
        heads, kv_heads = number_text(sizes["heads"]), number_text(sizes["kv_heads"])
        text = f"{heads} heads, {kv_heads} kv, {number_text(sizes['pairs'])} pairs"
    elif isinstance(op, Collective):
        text = f"{number_text(sizes['elems'])} elements, {number_text(sizes['group'])} devices"
    elif isinstance(op, Elementwise):
        text = f"{number_text(sizes['elems'])} elements"
    else:
        text = ", ".join(f"{key} {number_text(value)}" for key, value in sizes.items() if key not in _QUIET)
    kind = _type_name(op)
    return f"{markup(kind)}  {markup(text)}" if text else markup(kind)


def _kernel(op: LoraShrink | LoraExpand, sizes: dict[str, float]) -> str:
    rows = sizes["m"] if isinstance(op, LoraShrink) else sizes["rows"]
    text = f"{number_text(rows)} × {number_text(sizes['k'])} → {number_text(sizes['n'])}"
    tiles, empty = sizes["tiles"], sizes["empty_tiles"]
    return f"{text}, {number_text(tiles)} tiles" + (f" + {number_text(empty)} empty" if empty else "")


def _type_name(op: Op) -> str:
    if isinstance(op, Collective):
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(op).__name__).upper()
    return op.op_type.name


def part_text(parts: tuple[str, ...], shape: str) -> str:
    """Label of an edge: the part of the value that it carries, if not all, and the shape."""
    names = " + ".join(markup(part) for part in parts)
    return f" <I>{names}</I> <BR/> {markup(shape)} " if parts else f"  {markup(shape)} "


def tooltip(entry: Entry, scenario: int) -> str:
    """All properties of a node, one per line, for pictures with tooltips."""
    op, work = entry.op, entry.op.work()
    lines = [entry.name, f"{type(op).__name__} ({op.op_type.name}), runs {entry.times} times"]
    lines += [f"{name} = {number(value, scenario):.12g}" for name, value in op.dims().items()]
    lines.append(f"{count_text(number(work.flops, scenario))} flops")
    read, written, sent = (
        bytes_text(number(size, scenario)) for size in (work.read_bytes, work.write_bytes, work.message_bytes)
    )
    lines.append(f"reads {read}, writes {written}, sends {sent}; operands {op.residency.name}")
    if "latency_s" in entry.data:
        latency = seconds_text(number(entry.data["latency_s"], scenario))
        lines.append(f"{latency}, bound by {bound_of(entry.data, scenario)}")
    if "slack_s" in entry.data:
        lines.append(f"slack {seconds_text(max(number(entry.data['slack_s'], scenario), 0.0))}")
    return quoted("\n".join(line.replace("\n", "↵") for line in lines))


def group_label(group: Group) -> str:
    """The heading of a box: number of iterations, name, and the time of all iterations."""
    parts = []
    if group.repeat is not None and group.repeat.times > 1:
        parts.append(f'<FONT POINT-SIZE="16"><B>{group.repeat.times} × </B></FONT>')
    parts.append(f'<FONT POINT-SIZE="12"><B>{markup(group.label)}</B></FONT>')
    if group.latency_s is not None:
        parts.append(small(f"   {seconds_text(group.latency_s)} in all", size=10))
    return "".join(parts)


def header(flat: Flat, title: str, chips: Iterable[str] = ()) -> str:
    """Title, latency and legend, above the picture.

    chips: legend cells in front of the usual ones
    """
    lines = [f'<FONT POINT-SIZE="18"><B>{markup(title)}</B></FONT>'] if title else []
    if flat.latency_s is not None:
        lines.append(f'<FONT POINT-SIZE="12">{seconds_text(flat.latency_s)} along the critical path</FONT>')
    if flat.caution:
        lines.append(small(markup(flat.caution, len(flat.caution))))
    kinds = {kind_of(entry.op) for entry in flat.nodes.values()} - {Kind.OTHER}
    chips = [*chips, *(chip(TINTS[kind].fill, TINTS[kind].line, kind.value) for kind in Kind if kind in kinds)]
    if flat.path:
        chips.append(f"<TD>{small('<B>━━</B>', CRITICAL, 11)} {small('critical path')}</TD>")
        if any(edge.stream for edge in flat.edges):
            chips.append(f"<TD>{small('<B>╍╍</B>', CRITICAL, 11)} {small('waits for its stream')}</TD>")
        chips += [
            f"<TD>{small('●', BOUND_COLOURS[name], 11)} {small(name)}</TD>"
            for name in ("compute", "memory", "network", "launch")
        ]
    row = "".join(chips)
    if row:
        lines.append(f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="6" CELLPADDING="3"><TR>{row}</TR></TABLE>')
    if not lines:
        return " "
    cells = "".join(f"<TR><TD>{line}</TD></TR>" for line in lines)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="3">{cells}</TABLE>'


def chip(fill: str, line: str, text: str, style: str = "ROUNDED") -> str:
    """A cell of a legend."""
    return f'<TD BGCOLOR="{fill}" BORDER="1" COLOR="{line}" STYLE="{style}">{small(markup(text))}</TD>'

"""Layout of a small graph: layers from top to bottom, few crossings, straight chains.

Layers by longest path, crossings reduced by barycentres, long edges routed through dummy nodes: Sugiyama, Tagawa and
Toda, "Methods for Visual Understanding of Hierarchical System Structures", IEEE Trans. SMC 11(2), 1981.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SWEEPS = 12


@dataclass(frozen=True, slots=True)
class Positions:
    """Centres of nodes, the bends of each edge from source to target, and the total width and height."""

    nodes: dict[str, tuple[float, float]]
    edges: dict[tuple[str, str], list[tuple[float, float]]]
    width: float
    height: float


def place(
    widths: Mapping[str, float], edges: Iterable[tuple[str, str]], *, row: float = 96.0, gap: float = 26.0
) -> Positions:
    """The layout of nodes of given widths in launch order, so that edges lead from earlier to later nodes."""
    links = list(dict.fromkeys(edges))
    ranks = _ranks(list(widths), links)
    sizes = dict(widths)
    chains = {link: _chain(link, ranks, sizes) for link in links}
    rows: list[list[str]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for name in sizes:
        rows[ranks[name]].append(name)
    steps = [pair for chain in chains.values() for pair in zip(chain, chain[1:], strict=False)]
    above = _neighbours(sizes, ((target, source) for source, target in steps))
    below = _neighbours(sizes, steps)
    _order(rows, above, below)
    x = _columns(rows, sizes, above, below, gap)
    left = min((x[name] - sizes[name] / 2 for name in sizes), default=0.0)
    at = {name: (x[name] - left, ranks[name] * row + row / 2) for name in sizes}
    return Positions(
        nodes={name: at[name] for name in widths},
        edges={link: [at[name] for name in chain] for link, chain in chains.items()},
        width=max((at[name][0] + sizes[name] / 2 for name in sizes), default=0.0),
        height=len(rows) * row,
    )


def _ranks(names: list[str], links: list[tuple[str, str]]) -> dict[str, int]:
    ranks = dict.fromkeys(names, 0)
    into: dict[str, list[str]] = {name: [] for name in names}
    out: dict[str, list[str]] = {name: [] for name in names}
    for source, target in links:
        into[target].append(source)
        out[source].append(target)
    for name in names:
        ranks[name] = max((ranks[source] + 1 for source in into[name]), default=0)
    for name in reversed(names):  # a source goes directly above its first user
        if not into[name] and out[name]:
            ranks[name] = min(ranks[target] for target in out[name]) - 1
    return ranks


def _chain(link: tuple[str, str], ranks: dict[str, int], sizes: dict[str, float]) -> list[str]:
    """The nodes along an edge; a dummy node is added on each layer that it crosses."""
    source, target = link
    between = []
    for rank in range(ranks[source] + 1, ranks[target]):
        holder = f"{source}\0{target}\0{rank}"
        ranks[holder], sizes[holder] = rank, 12.0
        between.append(holder)
    return [source, *between, target]


def _neighbours(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names}
    for name, neighbour in pairs:
        found[name].append(neighbour)
    return found


def _order(rows: list[list[str]], above: dict[str, list[str]], below: dict[str, list[str]]) -> None:
    """Sort each layer by the mean position of its neighbours, alternating downward and upward passes."""
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        near = above if downwards else below
        for row in rows if downwards else reversed(rows):
            place = {name: i for other in rows for i, name in enumerate(other)}
            keys = {name: _mean([place[n] for n in near[name]], place[name]) for name in row}
            row.sort(key=lambda name: keys[name])


def _columns(
    rows: list[list[str]], sizes: dict[str, float], above: dict[str, list[str]], below: dict[str, list[str]], gap: float
) -> dict[str, float]:
    """Horizontal positions: move each node towards its neighbours, and separate overlapping nodes."""
    x: dict[str, float] = {}
    for row in rows:
        _apart(row, dict.fromkeys(row, 0.0), sizes, gap, x)
    for sweep in range(2 * SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {name: _mean([x[n] for n in near[name]], x[name]) for name in row}
            _apart(row, wanted, sizes, gap, x)
    return x


def _apart(row: list[str], wanted: dict[str, float], sizes: dict[str, float], gap: float, x: dict[str, float]) -> None:
    """The mean of packing from the left and packing from the right, which avoids drift to either side."""

    def pack(names: list[str], sign: float) -> dict[str, float]:
        found: dict[str, float] = {}
        edge = float("-inf")
        for name in names:
            centre = max(sign * wanted[name], edge + sizes[name] / 2)
            found[name] = sign * centre
            edge = centre + sizes[name] / 2 + gap
        return found

    left, right = pack(row, 1.0), pack(row[::-1], -1.0)
    x.update({name: (left[name] + right[name]) / 2 for name in row})


def _mean(values: list[float] | list[int], default: float) -> float:
    return sum(values) / len(values) if values else default

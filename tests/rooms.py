"""The rooms of the package and what they import of each other: `python -m tests.rooms [CHECKOUT]` prints them.

A room is a folder of `graphsim/` or a file directly in it. What is imported for annotations only counts as well.
"""

from __future__ import annotations

import ast
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx

from tests.paths import ROOT

NAME = "graphsim"


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules_of(package: Path) -> dict[str, Path]:
    """The package's files by module name within it, without its own `__init__` and the handbook's scripts."""
    files = sorted(path.relative_to(package) for path in package.rglob("*.py"))
    names = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): package / file for file in files}
    return {name: path for name, path in names.items() if name != "__init__" and name.partition(".")[0] != "docs"}


def imports_of(path: Path, modules: dict[str, Path], *, types: bool = True) -> set[str]:
    """Modules of the package that a file imports, at its top or inside a function.

    types: False leaves out what is imported for annotations only
    """
    skipped = set() if types else _for_types_only(path)
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node not in skipped and (node.module or "").split(".")[0] == NAME:
            module = (node.module or "").removeprefix(NAME).removeprefix(".")
            inner = {f"{module}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= (inner & modules.keys()) or ({module} & modules.keys())
    return found


def _for_types_only(path: Path) -> set[ast.AST]:
    guarded = [
        node
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {inner for node in guarded for inner in ast.walk(node)}


def module_graph(modules: dict[str, Path], *, types: bool = True) -> nx.DiGraph:
    """An edge from every module to each one that it imports."""
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    graph.add_edges_from(
        (name, other) for name, path in modules.items() for other in imports_of(path, modules, types=types)
    )
    return graph


def room_of(module: str) -> str:
    """The first part of a module's name."""
    return module.partition(".")[0]


def room_graph(modules: dict[str, Path]) -> nx.DiGraph:
    """Rooms with their `lines`, and edges from each to those it imports, with the `count` of files that do."""
    lines: Counter[str] = Counter()
    for name, path in modules.items():
        lines[room_of(name)] += len(path.read_text(encoding="utf-8").splitlines())
    counts = Counter(
        (room_of(name), other)
        for name, path in modules.items()
        for other in {room_of(found) for found in imports_of(path, modules)} - {room_of(name)}
    )
    graph = nx.DiGraph()
    graph.add_nodes_from((room, {"lines": number}) for room, number in lines.items())
    graph.add_edges_from((room, other, {"count": number}) for (room, other), number in counts.items())
    return graph


def floors_of(graph: nx.DiGraph) -> list[list[str]]:
    """Rooms from bottom to top, each on the lowest floor above all that it imports; a circle shares one floor."""
    circles = nx.condensation(graph)
    return [
        sorted(room for circle in floor for room in circles.nodes[circle]["members"])
        for floor in nx.topological_generations(circles.reverse())
    ]


def circles_of(graph: nx.DiGraph) -> list[list[str]]:
    """Nodes that import each other, directly or by way of others."""
    return sorted(sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1)


def report(package: Path) -> Iterator[str]:
    """What the command prints, line by line."""
    modules = modules_of(package)
    graph, floors = room_graph(modules), floors_of(room_graph(modules))
    lines = sum(lines for _, lines in graph.nodes(data="lines"))
    yield f"{len(graph)} rooms on {len(floors)} floors, {graph.number_of_edges()} edges between them, {lines:,} lines"
    for number, floor in enumerate(floors, 1):
        for room in floor:
            used = sorted(((data["count"], other) for _, other, data in graph.out_edges(room, data=True)), reverse=True)
            imports = ", ".join(f"{other} {count}" for count, other in used)
            yield f"{number:5}  {room:14} {graph.nodes[room]['lines']:6,}  {imports}".rstrip()
    for what, found in (("rooms", circles_of(graph)), ("modules", circles_of(module_graph(modules)))):
        yield f"circles of {what}: {'; '.join(' <-> '.join(circle) for circle in found) or 'none'}"


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader like `head` may stop early
    sys.stdout.writelines(f"{line}\n" for line in report((Path(sys.argv[1]) if sys.argv[1:] else ROOT) / NAME))

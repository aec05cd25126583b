"""Any graph as node-link JSON and back: operations, annotations, arrays over scenarios, bodies of repeats.

The format is networkx's (`nx.node_link_graph(data, edges="edges")` reads it); a value that JSON cannot represent is an
object marked `$op`, `$enum`, `$format`, `$record`, `$array`, `$tuple`, `$float`, `$graph` or `$map`.
Reading builds only operations, records and enums that are already defined; it imports and runs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from graphsim.cost.base import Cost
from graphsim.display.nodes import require
from graphsim.errors import GraphError, choices_text
from graphsim.files.written import read_text, write_text
from graphsim.graph.sound import require_readable
from graphsim.ops import Direction, Op, OpType, Part, PipelineStage, Residency, Sharding, Work, op_classes
from graphsim.ops.formats import FORMATS, Format
from graphsim.units import short

VERSION = 1
_RECORDS: dict[str, type] = {cls.__name__: cls for cls in (Cost, Format, Part, PipelineStage, Work)}
_ENUMS: dict[str, type[Enum]] = {cls.__name__: cls for cls in (Direction, OpType, Residency, Sharding)}


def to_json(graph: nx.DiGraph, path: str | Path | None = None) -> str:
    """The graph as JSON text, also written to `path` if given; `from_json` restores the same graph.

    numpy scalars become Python numbers, arrays keep their type. Raises GraphError naming the node for a value that
    cannot be written and restored, ConfigError if `path` is not writable.
    """
    if not isinstance(graph, nx.DiGraph):
        require("to_json", graph, nx.DiGraph)
    text = json.dumps(graph_data(graph), allow_nan=False)
    if path is not None:
        write_text(path, text)
    return text


def from_json(source: str | Path | Mapping[str, Any]) -> nx.DiGraph:
    """The graph that `to_json` wrote: from its text, the path of its file, or the parsed mapping.

    Raises GraphError naming the place in the document, or the invalid node; ConfigError if the file cannot be read.
    """
    try:
        return require_readable(_graph(_document(source), "document"))
    except RecursionError:
        raise GraphError("the document is nested too deeply to be read") from None


def _document(source: str | Path | Mapping[str, Any]) -> Any:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | Path):
        raise GraphError(f"source = {short(source)} is not allowed; expected JSON text, a path or a mapping")
    text = source if isinstance(source, str) and source.lstrip()[:1] == "{" else read_text(source)
    try:
        return json.loads(text)
    except ValueError as error:  # also raised for numbers with more digits than Python parses
        raise GraphError(f"the document is not JSON: {error}") from None


def graph_data(graph: nx.DiGraph) -> dict[str, Any]:
    """The graph as plain JSON values; edges in the order in which each node takes its inputs."""
    nodes = []
    for name, data in require_readable(graph).nodes(data=True):
        if not isinstance(name, str):
            raise GraphError(f"node {name!r} has a name that is not a string, so it cannot be written")
        nodes.append({"id": name} | _attributes(data, f"node '{name}'", ("id",)))
    edges = [
        {"source": source, "target": target}
        | _attributes(graph.edges[source, target], f"edge {source} -> {target}", ("source", "target"))
        for target in graph
        for source in graph.predecessors(target)
    ]
    return {
        "format": "graphsim",
        "version": VERSION,
        "directed": True,
        "multigraph": False,
        "graph": _attributes(graph.graph, "graph"),
        "nodes": nodes,
        "edges": edges,
    }


def _attributes(data: Mapping[Any, Any], place: str, taken: tuple[str, ...] = ()) -> dict[str, Any]:
    bad = next((key for key in data if not isinstance(key, str) or key in taken), None)
    if bad is not None:
        raise GraphError(f"{place} has an attribute called {bad!r}, which node-link JSON cannot hold")
    return {key: _written(value, f"{place}, {key}") for key, value in data.items()}


def _written(value: Any, place: str) -> Any:
    if value is None or isinstance(value, str | bool) and not isinstance(value, Enum):
        return value
    if isinstance(value, Enum):
        return {"$enum": type(value).__name__, "name": value.name}
    if isinstance(value, np.generic):
        return _written(value.item(), place)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.ndarray):
        return _written_array(value, place)
    if isinstance(value, list | tuple):
        items = [_written(item, place) for item in value]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        return {"$map": [[_written(key, place), _written(item, place)] for key, item in value.items()]}
    if isinstance(value, nx.DiGraph):
        return {"$graph": graph_data(value)}
    return _written_record(value, place)


def _written_array(array: np.ndarray, place: str) -> dict[str, Any]:
    if array.dtype.kind not in "fiub":
        raise GraphError(f"{place}: an array of {array.dtype} cannot be written; expected numbers")
    values = [_written(item, place) for item in array.ravel().tolist()]
    return {"$array": {"dtype": array.dtype.name, "shape": list(array.shape), "values": values}}


def _written_record(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, Format) and FORMATS.get(value.name) == value:
        return {"$format": value.name}
    name = type(value).__name__
    known = op_classes().get(name) if isinstance(value, Op) else _RECORDS.get(name)
    if known is not type(value) or not is_dataclass(value):
        raise GraphError(f"{place}: a value of type '{name}' cannot be written")
    content = {f.name: _written(getattr(value, f.name), f"{place}.{f.name}") for f in fields(value)}
    return {"$op" if isinstance(value, Op) else "$record": name, "fields": content}


def _graph(data: Any, place: str) -> nx.DiGraph:
    if not isinstance(data, Mapping) or data.get("format") != "graphsim":
        raise GraphError(f"{place} is not a graph that graphsim wrote; expected format = 'graphsim'")
    if data.get("version") != VERSION:
        raise GraphError(f"{place}: version = {data.get('version')!r} is not known; allowed: {VERSION}")
    graph = nx.DiGraph()
    graph.graph.update(_read_attributes(_part(data, "graph", dict, place), f"{place}.graph"))
    for i, node in enumerate(_part(data, "nodes", list, place)):
        where = f"{place}.nodes[{i}]"
        name = _name(node, "id", where)
        if name in graph:
            raise GraphError(f"{where}: node '{name}' appears twice")
        graph.add_node(name)
        graph.nodes[name].update(_read_attributes(node, where, ("id",)))
    for i, edge in enumerate(_part(data, "edges", list, place)):
        where = f"{place}.edges[{i}]"
        ends = [_name(edge, key, where) for key in ("source", "target")]
        for end in ends:
            if end not in graph:
                raise GraphError(f"{where}: there is no node '{end}'; {choices_text(end, graph)}")
        graph.add_edge(*ends)
        graph.edges[ends[0], ends[1]].update(_read_attributes(edge, where, ("source", "target")))
    return graph


def _read_attributes(data: Mapping[str, Any], place: str, taken: tuple[str, ...] = ()) -> dict[str, Any]:
    return {key: _read(value, f"{place}.{key}") for key, value in data.items() if key not in taken}


def _part(data: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    value = data.get(key)
    if not isinstance(value, kind):
        expected = "a list" if kind is list else "an object"
        raise GraphError(f"{place}.{key} = {short(value)} is not allowed; expected {expected}")
    return value


def _name(data: Any, key: str, place: str) -> str:
    if not isinstance(data, dict) or not isinstance(data.get(key), str):
        raise GraphError(f"{place} has no text under '{key}'")
    return str(data[key])


def _read(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return [_read(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), "")
    if tag not in _READERS:
        raise GraphError(f"{place} holds an object of no known kind; {choices_text(tag, _READERS)}")
    try:
        return _READERS[tag](value[tag], value, place)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        if isinstance(error, GraphError):
            raise
        raise GraphError(f"{place}: {short(value[tag])} is not allowed under {tag}; to_json writes it") from None


def _read_array(data: Any, _: Any, place: str) -> Any:
    dtype = np.dtype(data["dtype"])
    if dtype.kind not in "fiub":
        raise GraphError(f"{place}: an array of {dtype} cannot be read; expected numbers")
    return np.array([_read(item, place) for item in data["values"]], dtype=dtype).reshape(data["shape"])


def _read_enum(name: Any, data: Any, place: str) -> Enum:
    kind = _ENUMS.get(name)
    if kind is None or data.get("name") not in kind.__members__:
        known = kind.__members__ if kind else _ENUMS
        found = data.get("name") if kind else name
        raise GraphError(f"{place}: '{found}' is not known; {choices_text(found, known)}")
    return kind[data["name"]]


def _read_format(name: Any, _: Any, place: str) -> Format:
    if name not in FORMATS:
        raise GraphError(f"{place}: format '{name}' is not known; {choices_text(name, FORMATS)}")
    return FORMATS[name]


def _record_reader(known: Callable[[], Mapping[str, type]]) -> Callable[[Any, Any, str], Any]:
    def read(name: Any, data: Any, place: str) -> Any:
        kinds = known()
        if name not in kinds:
            hint = f"import the module that defines it, or {choices_text(name, kinds)}"
            raise GraphError(f"{place}: '{name}' is not defined here; {hint}")
        content = _part(data, "fields", dict, place)
        expected = [f.name for f in fields(kinds[name])]
        unknown = next((key for key in content if key not in expected), None)
        if unknown is not None:
            raise GraphError(f"{place}: '{name}' has no field '{unknown}'; {choices_text(unknown, expected)}")
        return kinds[name](**{key: _read(value, f"{place}.{key}") for key, value in content.items()})

    return read


_READERS: Mapping[str, Callable[[Any, Any, str], Any]] = {
    "$op": _record_reader(op_classes),
    "$record": _record_reader(lambda: _RECORDS),
    "$enum": _read_enum,
    "$format": _read_format,
    "$array": _read_array,
    "$tuple": lambda items, _, place: tuple(_read(item, place) for item in items),
    "$float": lambda text, _, place: float(text),
    "$graph": lambda data, _, place: _graph(data, place),
    "$map": lambda pairs, _, place: {_read(key, place): _read(item, place) for key, item in pairs},
}

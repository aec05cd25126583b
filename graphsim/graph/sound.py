"""Whether a graph from outside is valid input: one check, made once where such a graph comes in."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields
from functools import lru_cache
from typing import Any, cast

import networkx as nx
import numpy as np

from graphsim.errors import GraphError
from graphsim.ops import Op, Repeat
from graphsim.units import Num, amount_text, bounds_text, short

MOST = 1e30
"""Dimensions and seconds beyond it are mistakes; products of a few of them would overflow."""

DEEPEST = 40
"""How deeply repeats, and operations within operations, may be nested."""

MOST_TURNS = 10**9
"""How often a repeat may run its body, multiplied by the repeats around it."""

PLACED = ("start_s", "finish_s", "slack_s", "critical")
"""What scheduling writes on nodes: numbers, or arrays over scenarios."""

ANNOTATIONS = ("latency_s", *PLACED)
"""What annotating and scheduling write."""

Holds = Callable[[Any], bool]


def require_readable(graph: object) -> nx.DiGraph:
    """The graph, if it is a DiGraph in launch order whose operations' fields are of their types.

    Its nodes need not carry operations, and arrays over scenarios may hold any values, so that any file that was
    written can be read. Raises GraphError naming the node or edge.
    """
    return _checked(graph, whole=False)


def require_sound(graph: object) -> nx.DiGraph:
    """The graph, if every node also carries an operation that computes finite work from finite dimensions.

    Raises GraphError naming the node or edge, what was found there and what is allowed.
    """
    return _checked(graph, whole=True)


def _checked(graph: object, whole: bool) -> nx.DiGraph:
    check = _Check(whole)
    check.graph(graph, "", 1, ())
    return typing.cast(nx.DiGraph, graph)


class _Check:
    """One pass over a graph and the bodies of its repeats; an operation that occurs at many nodes is checked once."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.seen: dict[int, Op] = {}
        self.scenarios = 1

    def graph(self, graph: Any, prefix: str, times: int, around: tuple[int, ...]) -> None:
        where = f"the body of '{prefix[:-1]}'" if prefix else "graph"
        if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
            raise GraphError(f"{where} = {short(graph)} is not a networkx.DiGraph; build_graph makes one")
        if id(graph) in around or len(around) == DEEPEST:
            how = "holds itself" if id(graph) in around else f"lies more than {DEEPEST} repeats deep"
            raise GraphError(f"{where} {how}; a repeat's body is a graph of its own")
        for key, value in graph.graph.items():
            if key in ANNOTATIONS:
                self.annotation(value, f"{where} has {key}")
        for name, data in graph.nodes(data=True):
            full = f"node '{prefix}{name}'"
            op = data.get("op")
            if isinstance(op, Op):
                if id(op) not in self.seen:
                    self.seen[id(op)] = op
                    self.op(op, full)
                    if self.whole and not isinstance(op, Repeat):
                        _require_work(op, full)
                if isinstance(op, Repeat):
                    self.repeat(op, f"{prefix}{name}", times, (*around, id(graph)))
            elif self.whole or op is not None:
                raise GraphError(f"{full} carries no op; add nodes with graphsim.add")
            if not isinstance(name, str):
                raise GraphError(f"node {short(name)} has a name that is not a string")
            for key in ANNOTATIONS:
                if key in data:
                    self.annotation(data[key], f"{full} has {key}")
        for problem in _broken_edges(graph, self.whole):
            raise GraphError(problem)

    def repeat(self, op: Repeat, full: str, times: int, around: tuple[int, ...]) -> None:
        if not 1 <= op.times * times <= MOST_TURNS:
            allowed = f"1 to {amount_text(MOST_TURNS)}, with those of the repeats around it"
            raise GraphError(f"node '{full}' repeats its body {short(op.times)} times; allowed: {allowed}")
        self.graph(op.body, f"{full}.", op.times * times, around)
        if not len(op.body):
            raise GraphError(f"node '{full}' repeats a body without nodes")

    def op(self, op: Op, full: str, depth: int = 0) -> None:
        if depth == DEEPEST:
            raise GraphError(f"{full} nests operations more than {DEEPEST} levels deep")
        for name, expected, holds in _fields_of(cast(Hashable, type(op))):
            value = getattr(op, name)
            if not holds(value):
                raise GraphError(f"{full} has {name} = {short(value)}; expected {expected}")
        for name, value in op.dims().items():
            self.number(value, f"{full} has {name}")
        for value in _inner(op):
            if isinstance(value, Op):
                self.op(value, full, depth + 1)
            else:
                self.number(value, f"{full} has a number")

    def annotation(self, value: Any, what: str) -> None:
        if isinstance(value, bool | np.bool_) or _is_array(value, "b"):
            return
        self.number(value, what, least=-math.inf if "latency_s" not in what else 0.0)

    def number(self, value: Any, what: str, least: float = 0.0) -> None:
        """One dimension. Raises GraphError for anything that is not a valid number, and for scenarios that differ in
        number.
        """
        if not _is_num(value):
            good = False
        elif not isinstance(value, np.ndarray):
            good = -MOST <= value <= MOST and value >= least
        elif not self.whole:
            good = value.ndim <= 1
        else:
            good = value.size > 0 and value.ndim <= 1 and bool(np.all(np.abs(value) <= MOST) and np.all(value >= least))
        if not good:
            allowed = f"finite numbers {bounds_text(least, MOST)}, one or a row over scenarios"
            raise GraphError(f"{what} = {short(value)}; allowed: {allowed}")
        size = int(np.size(value))
        if self.whole and size > 1:
            if self.scenarios not in (1, size):
                raise GraphError(f"{what} over {size} scenarios, but other numbers have {self.scenarios}")
            self.scenarios = size


def _broken_edges(graph: nx.DiGraph, whole: bool) -> Iterator[str]:
    place = {name: i for i, name in enumerate(graph)}
    for source, target, data in graph.edges(data=True):
        if place[source] == place[target]:
            yield f"node '{target}' takes its own result as input"
        if place[source] > place[target]:
            yield f"node '{target}' is launched before its input '{source}'; nodes are added in launch order"
        parts, edge = data.get("parts", ()), f"edge '{source}' -> '{target}'"
        if not isinstance(parts, tuple) or not all(isinstance(part, str) for part in parts):
            yield f"{edge} has parts = {short(parts)}; expected a tuple of names"
        if whole and parts:
            known = graph.nodes[source]["op"].out_parts
            missing = next((part for part in parts if part not in known), None)
            if missing is not None:
                yield f"{edge} takes part '{missing}', which its source does not have"


WRONG = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
"""What arithmetic raises for fields that are valid on their own but not together."""


def _require_work(op: Op, full: str) -> None:
    try:
        with np.errstate(all="ignore"):
            work = op.work()
            found: dict[str, Num] = {field.name: getattr(work, field.name) for field in fields(work)}
            found["out_elems"] = op.out_elems
            bad = next((name for name, value in found.items() if not np.all(np.isfinite(value))), None)
    except WRONG as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise GraphError(f"{full}, a {type(op).__name__}, does not compute: {short(said)}") from None
    if bad is not None:
        raise GraphError(f"{full}, a {type(op).__name__}, has dimensions of which {bad} is not a finite number")


def _inner(op: Op) -> Iterator[Any]:
    """Operations and numbers nested in an operation's fields."""
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(value, Op):
            yield value
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, Op) or _is_num(item):
                    yield item
                elif hasattr(item, "width"):
                    yield item.width
                    yield item.units


@lru_cache(maxsize=1024)
def _fields_of(kind: type[Op]) -> tuple[tuple[str, str, Holds], ...]:
    """Each field's name, its allowed values in words, and a check of a value; fields of unknown types take anything."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError, AttributeError):  # of a user's class with a name that is no longer defined
        return ()
    found = ((field.name, hints.get(field.name), _holds(hints.get(field.name))) for field in fields(kind))
    return tuple((name, _in_words(hint), holds) for name, hint, holds in found if holds is not None)


def _holds(hint: Any) -> Holds | None:
    if hint in (float, Num) or hint == float | int:
        return _is_num
    if hint is int:
        return lambda value: isinstance(value, int | np.integer) and not isinstance(value, bool)
    if hint is bool:
        return lambda value: isinstance(value, bool | np.bool_)
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return lambda value: isinstance(value, hint)
    return _holds_parts(typing.get_origin(hint), typing.get_args(hint))


def _holds_parts(origin: Any, arguments: tuple[Any, ...]) -> Holds | None:
    if origin is typing.Literal:
        return lambda value: isinstance(value, str) and value in arguments
    inner = [_holds(argument) for argument in arguments if argument is not ...]
    known = [holds for holds in inner if holds is not None]
    if len(known) < len(inner):
        return None
    if origin in (typing.Union, types.UnionType):
        return lambda value: any(holds(value) for holds in known)
    if origin is not tuple:
        return None
    if arguments[-1:] == (...,):
        return lambda value: isinstance(value, tuple) and all(known[0](item) for item in value)
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(known)
        and all(holds(item) for holds, item in zip(known, value, strict=True))
    )


def _in_words(hint: Any) -> str:
    if hint in (float, Num):
        return "a number, or an array over scenarios"
    known = {int: "a whole number", bool: "True or False", str: "a text"}
    return known.get(hint) or (f"a {hint.__name__}" if isinstance(hint, type) else str(hint).replace("graphsim.", ""))


def _is_num(value: Any) -> bool:
    """Whether a value is a number or an array of numbers; not whether it is finite."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_array(value: Any, kinds: str) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim <= 1

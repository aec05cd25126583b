"""One example of every operation of the library, whatever its fields: what tests over all operations start from.

A new file in graphsim/ops is found by itself; a field that no example can be made for is named in a sentence.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, replace
from typing import Any

import networkx as nx

from graphsim.graph import add
from graphsim.ops import Gemm, LoraB, LoraMerge, Norm, Op, Part, Repeat, Sharding, Together, op_classes
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.formats import FORMATS

CLASSES = {name: kind for name, kind in sorted(op_classes().items()) if kind.__module__.startswith("graphsim.")}
"""Every class by name, base classes too."""

OPERATIONS = {name: kind for name, kind in CLASSES.items() if kind.out_elems is not Op.out_elems}
"""Those that say what they yield, and so can be nodes of a graph."""

KINDS = [kind for kind in OPERATIONS.values() if kind not in (Repeat, Together)]
"""Those that hold numbers rather than other operations."""

DIVISORS = ("group", "stride", "units", "ranks", "groups", "blocks", "further")
"""Counts that something is divided among: one at least."""

FLAGS = ("apart",)
"""Numbers that say whether something is so: 0 or 1."""

FLOWING = (
    "m", "elems", "rows", "tokens", "new_tokens", "query_tokens", "kv_tokens", "kept_tokens", "pairs", "rank",
    "launches", "tiles", "empty_tiles", "sequences", "decoding", "reads", "flops", "vector_flops", "state_elems",
    "moved_bytes",
)  # fmt: skip
"""Dimensions that say how much there is to do: where they are 0, nothing is."""

_BY_NAME = {"of": 8, "chosen": 2}
_BY_TYPE: dict[str, Any] = {"bool": True, "int": 2, "float": 2.0, "str": "s", "Format": FORMATS["bf16"]}


def dims_of(kind: type[Op]) -> list[str]:
    """Fields that are numbers over scenarios."""
    return [f.name for f in fields(kind) if str(f.type) == "Num"]


def made(kind: type[Op], dims: dict[str, Any], **further: Any) -> Op:
    """The operation with these dimensions; fields without a default that are none get a value of their type."""
    given = dims | further
    needed = [f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING and f.name not in given]
    return kind(**given, **{f.name: _value(kind, f) for f in needed})


def _value(kind: type[Op], wanted: Field[Any]) -> Any:
    named = str(wanted.type)
    if wanted.name in _BY_NAME and named != "str":
        return _BY_NAME[wanted.name]
    if named in CLASSES:
        return made(CLASSES[named], {dim: 2.0 if dim == "ranks" else 8.0 for dim in dims_of(CLASSES[named])})
    assert named in _BY_TYPE, f"{kind.__name__}.{wanted.name} is a {named}: give it a default, or tests a value for it"
    return _BY_TYPE[named]


def example(kind: type[Op], number: Any = 8.0, **further: Any) -> Op:
    """The operation with this number for every dimension. further: other fields."""
    if kind is Repeat:
        body = nx.DiGraph()
        add(body, "x", Gemm(m=number, n=2.0, k=3.0))
        return Repeat(body=body, times=3)
    if kind is Together:
        return Together(parts=(Gemm(m=number, n=2.0, k=3.0),))
    return made(kind, dict.fromkeys(dims_of(kind), number), **further)


def variants(kind: type[Op], dims: dict[str, Any]) -> list[Op]:
    """The operation in each of the forms that its switches allow."""
    plain = made(kind, dims)
    found = [plain]
    names = {f.name for f in fields(kind)}
    if "split" in names and kind is not ExpertGemm:
        found += [replace(plain, split=split, units=0.0) for split in (Sharding.COLUMN, Sharding.ROW)]  # type: ignore[call-arg]
        found.append(replace(plain, split=Sharding.COLUMN))  # type: ignore[call-arg]
    if "weights" in names and kind is not LoraMerge:
        found.append(replace(plain, weights=FORMATS["int4"]))  # type: ignore[call-arg]
    if "bias" in names:
        found.append(replace(plain, bias=True))  # type: ignore[call-arg]
    if kind in (Gemm, LoraB):
        parts = (Part(name="a", width=dims["n"] / 4, units=2.0), Part(name="b", width=3 * dims["n"] / 4))
        found.append(replace(plain, split=Sharding.COLUMN, parts=parts, units=0.0))  # type: ignore[call-arg]
    if kind is Norm:
        found.append(replace(plain, local=True))  # type: ignore[call-arg]
    return found

"""Constants and corrections of sparse attention's kernels from whole blocks, less what other families price in them.

Only block times were measured. The rest of a block's graph is priced by the other families, and what the host takes to
start the kernels is a constant of the engine; the rest is the sparse kernels'. All constants of a kernel are fitted at
once to the block times. The correction surface of a part is then fitted to what remains, divided and weighted by the
part's share of the block: where the host or a projection dominates, a row carries no information on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from graphsim.composed.pricing import serving
from graphsim.composed.sparse_blocks import (
    BlockWork,
    block_graph,
    block_work,
    device_s,
    host_s,
    method_of,
    phase_of,
)
from graphsim.cost.base import annotate
from graphsim.cost.blocks.sparse import sparse_shape
from graphsim.cost.calibrated import Prices
from graphsim.cost.families.formats import dtype_of
from graphsim.cost.families.overlap import overlapped
from graphsim.cost.families.registry import COMPOSED
from graphsim.cost.families.sparse import (
    ATTEND,
    BLOCK,
    DENSE,
    LAYOUT,
    START,
    SparseShape,
    coordinates,
    skeleton_s,
)
from graphsim.cost.surfaces.fitting import Order, fit_constants, fit_surface
from graphsim.cost.surfaces.surface import Surface, as_surface
from graphsim.cost.surfaces.tables import Array
from graphsim.hardware import Hardware
from graphsim.ops import IndexScores, SparseAttention

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")

MOST_ROWS = 3000
"""Rows that constants are fitted to; surfaces see all."""

NOTHING_S = 1e-9
"""Time of a part that no row has."""

LEAST_SHARE = 0.05
"""Share of a block's time below which a row carries no information on a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    """Measured blocks of one method, phase and cache format.

    rest_s: what the other families price
    shapes: of the sparse kernels, by part
    work: see `BlockWork`
    """

    measured_s: Array
    rest_s: Array
    shapes: Mapping[str, SparseShape]
    work: BlockWork


def fit(
    frame: pd.DataFrame, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Parameters of the family `sparse` from rows of one engine's blocks, by method, phase, cache format and part.

    parameters: of the other families; those that serve the device by default
    """
    others = parameters or serving(frame, hardware)
    found: dict[str, Any] = {}
    dtypes = frame["kv_dtype"].map(lambda name: dtype_of("attention", str(name)))
    kernels = frame["kernel"].astype(str) if "kernel" in frame.columns else frame["op"].map(lambda op: "")
    methods = [method_of(str(op), kernel) for op, kernel in zip(frame["op"], kernels, strict=True)]
    phases = frame["op"].map(lambda op: phase_of(str(op)))
    for (method, phase, dtype), rows in frame.groupby([np.array(methods), phases, dtypes], sort=True):
        entry = _fit_one(_blocks(rows, hardware, others), hardware, dense=method in DENSE)
        found.setdefault(str(method), {}).setdefault(str(phase), {})[str(dtype)] = entry
    return found


def _blocks(rows: pd.DataFrame, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> _Blocks:
    price = Prices(hardware, {**parameters, "sparse": {}})
    parts = [_priced(part, hardware, price) for part in _alike(rows)]
    return _Blocks(
        measured_s=np.concatenate([part.measured_s for part in parts]),
        rest_s=np.concatenate([part.rest_s for part in parts]),
        shapes={name: _joined([part.shapes[name] for part in parts]) for name in parts[0].shapes},
        work=_joined([part.work for part in parts]),
    )


def _alike(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    keys = [name for name in (*COMPOSED["sparse"].groups, "kernel") if name in rows.columns]
    for _, part in rows.groupby(keys, sort=True, dropna=False):
        yield part


def _priced(rows: pd.DataFrame, hardware: Hardware, price: Prices) -> _Blocks:
    shapes: dict[str, SparseShape] = {}
    rest_s: Any = np.zeros(len(rows))
    graph = annotate(block_graph(rows), hardware, price)
    for _, node in graph.nodes(data=True):
        if isinstance(node["op"], IndexScores | SparseAttention):
            shape = sparse_shape(node["op"])
            shapes[shape.part] = _spread(shape, len(rows))
        else:
            rest_s = rest_s + node["latency_s"]
    return _Blocks(
        measured_s=rows["latency_us"].to_numpy(dtype=float) * 1e-6, rest_s=rest_s, shapes=shapes, work=block_work(rows)
    )


def _spread(shape: SparseShape, count: int) -> SparseShape:
    numbers = {
        field.name: np.broadcast_to(np.asarray(value, dtype=float), (count,))
        for field in fields(shape)
        if not isinstance(value := getattr(shape, field.name), str)
    }
    return replace(shape, **numbers)  # type: ignore[arg-type]


def _joined(parts: list[_T]) -> _T:
    """Concatenated; texts are those of the first."""
    numbers = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(parts[0])  # type: ignore[arg-type]
        if not isinstance(getattr(parts[0], field.name), str)
    }
    return replace(parts[0], **numbers)  # type: ignore[type-var]


def _rows(one: _T, chosen: Any) -> _T:
    numbers = {
        field.name: value[chosen]
        for field in fields(one)  # type: ignore[arg-type]
        if isinstance(value := getattr(one, field.name), np.ndarray)
    }
    return replace(one, **numbers)  # type: ignore[type-var]


def _fit_one(blocks: _Blocks, hardware: Hardware, *, dense: bool) -> dict[str, Any]:
    start = {f"{BLOCK}.{name}": value for name, value in _block_start(blocks).items()}
    start |= {f"{part}.{name}": value for part in blocks.shapes for name, value in START[part].items()}
    if dense:
        start[f"{BLOCK}.start_s"] = START[ATTEND]["start_s"]
    some = np.random.default_rng(0).permutation(len(blocks.measured_s))[:MOST_ROWS]
    few = replace(
        _rows(blocks, some), shapes={part: _rows(shape, some) for part, shape in blocks.shapes.items()},
        work=_rows(blocks.work, some),
    )  # fmt: skip
    constants = _nested(
        fit_constants(
            lambda c: _block_s(_nested(c), few, hardware, {})[0], start, np.log(few.measured_s), hold=3e-4, rounds=40
        )
    )
    surfaces = _surfaces(constants, blocks, hardware)
    entry: dict[str, Any] = {BLOCK: {"constants": constants.pop(BLOCK)}}
    for part, values in constants.items():
        entry[part] = {"constants": values}
        if part in surfaces:
            entry[part]["surface"] = surfaces[part].to_json()
    return entry


def _block_start(blocks: _Blocks) -> dict[str, float]:
    """If no row is eager, or none is long, that part starts at nearly zero and stays there."""
    work = blocks.work
    eager = work.eager.any()
    used = {
        "fused_fp8_s": work.fp8.any(),
        "host_s": eager,
        "fp8_s": eager and work.fp8.any(),
        "fp4_s": eager and work.fp4.any(),
        "long_s": eager and work.long.any(),
    }
    return {name: value if used.get(name, True) else NOTHING_S for name, value in START[BLOCK].items()}


def _nested(flat: Mapping[str, float]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, value in flat.items():
        part, _, constant = name.partition(".")
        found.setdefault(part, {})[constant] = value
    return found


def _block_s(
    c: Mapping[str, Mapping[str, float]], blocks: _Blocks, hardware: Hardware, surfaces: Mapping[str, Surface]
) -> tuple[Array, dict[str, Array]]:
    """Block times, and their sensitivity to each part."""
    parts = {
        part: np.asarray(skeleton_s(part, c[part], hardware, shape)) * _factor(surfaces.get(part), shape)
        for part, shape in blocks.shapes.items()
    }
    busy_s = device_s(c[BLOCK], blocks.work, blocks.rest_s, np.asarray(sum(parts.values())))
    total_s = np.asarray(overlapped(busy_s, host_s(c[BLOCK], blocks.work)))
    return total_s, {part: seconds / busy_s * (busy_s / total_s) ** 4 for part, seconds in parts.items()}


def _factor(surface: Surface | None, shape: SparseShape) -> Any:
    return 1.0 if surface is None else np.exp(surface(_arrays(shape)))


def _arrays(shape: SparseShape) -> dict[str, Array]:
    return {name: np.asarray(value, dtype=float) for name, value in coordinates(shape).items()}


def _surfaces(c: Mapping[str, Mapping[str, float]], blocks: _Blocks, hardware: Hardware) -> dict[str, Surface]:
    """The surface of each part, fitted in turn and twice: the second time given the other part's surface."""
    found: dict[str, Surface] = {}
    for part in (*blocks.shapes, *blocks.shapes):
        now_s, shares = _block_s(c, blocks, hardware, found)
        clear = shares[part] > LEAST_SHARE
        if not clear.any():
            continue
        shape = _rows(blocks.shapes[part], clear)
        before = np.log(_factor(found.get(part), shape)) * np.ones(int(clear.sum()))
        missing = np.clip(np.log(blocks.measured_s / now_s)[clear] / shares[part][clear], -1.0, 1.0)
        found[part] = as_surface(
            fit_surface(
                LAYOUT, _arrays(shape), before + missing, weights=shares[part][clear],
                order=_order(part, c[part], hardware, shape),
            ).to_json()
        )  # fmt: skip
    return found


def _order(part: str, c: Mapping[str, float], hardware: Hardware, shape: SparseShape) -> Order:
    """Pairs of kernels, the second with up to four times the queries, the keys of each, or the heads."""
    random, count = np.random.default_rng(0), 4000
    bits = random.uniform(0.0, (17.0, 20.0, 7.0), (count, 3))
    more = np.where(np.arange(3) == random.integers(0, 3, (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
    kernels = []
    for queries, keys, heads in ((2.0**exponents).T for exponents in (bits, bits + more)):
        first = _rows(shape, np.zeros(count, dtype=int))
        pairs = queries * keys
        kernels.append(replace(first, queries=queries, pairs=pairs, keys=pairs, heads=heads, kv_heads=np.ones(count)))
    low, high = (np.asarray(skeleton_s(part, c, hardware, kernel)) for kernel in kernels)
    return Order(low=_arrays(kernels[0]), high=_arrays(kernels[1]), least=np.log(low / high), weight=10.0)

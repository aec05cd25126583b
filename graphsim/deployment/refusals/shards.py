"""Divisibility of shards: outputs and inputs of MLPs and experts, and blocks of quantised weights.

Weights of a block share a scale, so a device's shard holds whole blocks, or no engine loads it:
vLLM 0.33, `model_executor/layers/quantization/utils/fp8_utils.py`; SGLang 0.5.23, `layers/quantization/fp8.py`. A block
along the inputs of a weight that is not sharded over them has to divide them as well (AWQ, GPTQ, NVFP4); fp8 blocks at
the edge of a whole dense weight are padded, those of experts are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsim.deployment.refusals.broken import Broken
from graphsim.graph import walk
from graphsim.lora.limits import Limits
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Gemm, Sharding
from graphsim.ops.formats import Format
from graphsim.ops.precision import ModuleFormats
from graphsim.ops.type_guards import is_expert_gemm
from graphsim.symbolic.memo import UNKEPT, Memo
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment


_ALLOWED = {
    "blocks": "shards of '{module}' that are a multiple of {block}",
    "width": "a degree that divides the {width} of '{module}'",
}
LEAST_GROUP = 32
"""Experts' groups are halved down to this size if shards require it (vLLM 0.33, `quantization/moe_wna16.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dimension:
    """One dimension of a weight.

    rule: `blocks` of a quantised one, `width` of an MLP's or expert's
    cut: whether devices share it, in at most `units` ways (0 = no limit)
    block: what a shard holds a multiple of
    whole: whether a weight that is not cut has to be one too
    kind: as `Limit.words` has it
    """

    rule: str
    module: str
    size: float
    block: float
    cut: bool
    units: float
    whole: bool
    experts: bool
    kind: str


_dimensions: Memo[tuple[_Dimension, ...]] = Memo(most=64)


def of_shards(deployment: Deployment, limits: Limits) -> Iterator[Broken]:
    """Every dimension of a weight whose shards would split an indivisible unit."""
    degrees = deployment.parallelism
    alone = isinstance(degrees.tp, float | int) and isinstance(degrees.ep, float | int)
    parts = (deployment.model.layers, *_formats(deployment), *((degrees.tp, degrees.ep) if alone else (UNKEPT,)))
    for broken in _cuts.get(parts, lambda: tuple(one for one in _cut_through(deployment) if one.any)):
        if limits.get(broken.rule):
            yield broken


_cuts: Memo[tuple[Broken, ...]] = Memo(most=256)


def _cut_through(deployment: Deployment) -> Iterator[Broken]:
    """Every dimension of a weight that the devices share, and whether it divides evenly."""
    tp, ep = (np.asarray(getattr(deployment.parallelism, name), dtype=float) for name in ("tp", "ep"))
    for one in _dimensions_of(deployment):
        devices = np.maximum(tp / ep, 1.0) if one.experts else tp
        ways = np.minimum(devices, one.units) if one.units else devices
        shard = one.size / ways if one.cut else np.full_like(tp, one.size)
        through = np.not_equal(np.mod(shard, one.block), 0.0)
        counts = np.full(through.shape, one.whole) | (np.greater(ways, 1.0) & one.cut)
        yield Broken(
            rule=one.rule, where=(through & counts)[()], asked="parallelism.tp", value=deployment.parallelism.tp,
            kind=one.kind, told={"size": shard, "block": one.block, "module": one.module, "width": one.size,
            "ways": ways}, allowed=_ALLOWED[one.rule],
        )  # fmt: skip


def _formats(deployment: Deployment) -> tuple[Format | ModuleFormats | None, ...]:
    precision = deployment.precision
    return precision.weights, precision.experts, precision.attention, precision.modules


def _dimensions_of(deployment: Deployment) -> tuple[_Dimension, ...]:
    model, precision = deployment.model, deployment.precision

    def make() -> tuple[_Dimension, ...]:
        ops = [op for _, op, _ in walk(build(model, prefill(1.0, 1.0), precision))]
        found = [one for op in ops if isinstance(op, Gemm) for one in _of(op)]
        return tuple(dict.fromkeys(found))

    return _dimensions.get((model.layers, *_formats(deployment)), make)


def _of(op: Gemm) -> Iterator[_Dimension]:
    form, experts = op.weights, is_expert_gemm(op)
    row, column = op.split is Sharding.ROW, op.split is Sharding.COLUMN
    halves = 2.0 if is_expert_gemm(op) and op.gated and column else 1.0
    widths: list[tuple[Num, Num]] = [(part.width, part.units) for part in op.parts] or [(op.n / halves, op.units)]
    if "ffn" in op.tags and (row or column):
        yield from (
            _Dimension(
                rule="width", module=op.module or op.role, size=float(size), block=1.0, cut=True, units=0.0,
                whole=False, experts=experts, kind="",
            )
            for size, units in ([(op.k, op.units)] if row else widths) if not units
        )  # fmt: skip
    if form.block_n:
        for width, units in widths:
            yield _Dimension(
                rule="blocks", module=op.module or op.role, size=float(width), block=float(form.block_n),
                cut=column, units=float(units), whole=experts and column,
                experts=experts, kind="experts" if experts else "column",
            )  # fmt: skip
    if form.block_k:
        kind = ("experts_down" if experts else "row") if form.block_n else "nvfp4" if form.name == "nvfp4" else "group"
        block = float(min(form.block_k, LEAST_GROUP) if experts and kind == "group" else form.block_k)
        yield _Dimension(
            rule="blocks", module=op.module or op.role, size=float(op.k), block=block, cut=row, units=float(op.units),
            whole=not form.block_n, experts=experts, kind=kind,
        )  # fmt: skip

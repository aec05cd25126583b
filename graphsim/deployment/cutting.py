"""Whether a model can be sharded over devices as asked, since heads, experts and layers are indivisible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import InfeasibleError
from graphsim.graph import walk
from graphsim.lora.limits import Limits
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops import Attention
from graphsim.ops.precision import load_precision
from graphsim.ops.type_guards import is_expert_gemm
from graphsim.symbolic.memo import Memo
from graphsim.units import Num, amount_text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """The units that tensor and expert parallelism distribute: heads (and those for keys and values), experts.

    indexed: whether an indexer chooses the keys that queries attend to
    """

    heads: frozenset[tuple[Num, Num]]
    experts: frozenset[int]
    indexed: bool


_units: Memo[_Units] = Memo(most=64)


def _units_of(model: ModelConfig) -> _Units:
    ops = [op for _, op, _ in walk(build(model, prefill(1.0, 1.0).with_towers, load_precision("bf16")))]
    attention = [op for op in ops if isinstance(op, Attention)]
    return _Units(
        heads=frozenset((op.heads, op.kv_heads) for op in attention if not op.indexes),
        experts=frozenset(op.of for op in ops if is_expert_gemm(op)),
        indexed=any(op.indexes for op in attention),
    )


def has_experts(model: ModelConfig) -> bool:
    """Whether some layer of the model is a mixture of experts."""
    return bool(_of(model).experts)


def has_indexer(model: ModelConfig) -> bool:
    """Whether an indexer of some layer chooses keys among all that the cache holds."""
    return _of(model).indexed


def _of(model: ModelConfig) -> _Units:
    return _units.get((model.layers, model.encoders, model.source_encoder), lambda: _units_of(model))


def check_cut(model: ModelConfig, parallelism: Parallelism, limits: Limits) -> None:
    """Raise InfeasibleError unless the model can be sharded as asked, naming the possible degrees.

    limits: of the engine, which may have its own wording
    """
    if parallelism.pp > max(model.num_layers, 1):
        raise InfeasibleError(
            f"parallelism.pp = {parallelism.pp} is not allowed for model '{model.name}'; "
            f"it has {model.num_layers} layers, allowed: 1 to {max(model.num_layers, 1)}"
        )
    if parallelism.pp > 1 and (model.source_encoder is not None or any(tower.seen for tower in model.encoders)):
        raise InfeasibleError(
            f"parallelism.pp = {parallelism.pp} is not allowed for model '{model.name}': its decoder's layers all read "
            "the encoder's output, which is not passed between stages; allowed: 1"
        )
    units = _of(model)
    _check_experts(model, parallelism, units.experts)
    tp = np.asarray(parallelism.tp, dtype=float)
    for heads, kv_heads in units.heads:
        if not _deals_out(tp, heads, kv_heads):
            allowed = [n for n in range(1, 129) if _deals_out(np.asarray(float(n)), heads, kv_heads)]
            raise InfeasibleError(
                f"parallelism.tp = {parallelism.tp} does not divide the {amount_text(heads)} attention heads "
                f"({amount_text(kv_heads)} for keys and values) of model '{model.name}'{_words(limits, heads, tp)}; "
                f"allowed: {', '.join(map(str, allowed))}"
            )


def _words(limits: Limits, heads: Num, tp: np.ndarray) -> str:
    """The engine's wording for heads that the group does not divide."""
    limit = limits.get("heads")
    uneven = tp[np.not_equal(np.mod(heads, tp), 0.0)]
    if limit is None or not uneven.size:
        return ""
    return f": {limit.told().format(heads=amount_text(heads), tp=amount_text(uneven.flat[0])).rstrip('.')}"


def _check_experts(model: ModelConfig, parallelism: Parallelism, counts: frozenset[int]) -> None:
    ep = np.asarray(parallelism.ep, dtype=float)
    if not np.any(ep > 1):
        return
    if not counts:
        raise InfeasibleError(f"parallelism.ep = {parallelism.ep} is not allowed: model '{model.name}' has no experts")
    for experts in counts:
        if np.any(experts % ep):
            allowed = [str(n) for n in range(1, experts + 1) if experts % n == 0]
            raise InfeasibleError(
                f"parallelism.ep = {parallelism.ep} does not divide the {experts} experts of model '{model.name}'; "
                f"allowed: {', '.join(allowed)}"
            )
        held = experts + parallelism.redundant_experts
        if np.any(held % ep):
            raise InfeasibleError(
                f"parallelism.redundant_experts = {parallelism.redundant_experts} is not allowed with "
                f"ep = {parallelism.ep}: {held} experts and copies cannot be divided evenly among the ranks"
            )


def _deals_out(tp: np.ndarray, heads: Num, kv_heads: Num) -> bool:
    return bool(np.all((heads % tp == 0) & ((kv_heads % tp == 0) | (tp % np.maximum(kv_heads, 1) == 0))))

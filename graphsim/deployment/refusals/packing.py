"""Projections that engines hold as one weight, and that a checkpoint stores in several formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import networkx as nx

from graphsim.deployment.refusals.broken import Broken
from graphsim.graph import inputs_of
from graphsim.models.build import build
from graphsim.models.phase import prefill
from graphsim.ops import Gemm, Repeat
from graphsim.ops.precision import Precision
from graphsim.ops.type_guards import is_expert_gemm
from graphsim.symbolic.memo import Memo

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment
    from graphsim.models.config import ModelConfig


def of_packing(deployment: Deployment) -> Iterator[Broken]:
    """The first group of projections whose members are not all in one format."""
    model, precision = deployment.model, deployment.precision
    if not precision.modules:
        return
    found = _first.get((model.layers, precision.modules, precision.weights), lambda: _mixed(model, precision))
    if found:
        formats, modules = found
        yield Broken(
            rule="packed", where=True, asked="precision", value=formats, told={"modules": modules},
            allowed="one format for all of them",
        )  # fmt: skip


_first: Memo[tuple[str, str] | tuple[()]] = Memo(most=64)


def _mixed(model: ModelConfig, precision: Precision) -> tuple[str, str] | tuple[()]:
    for ops in _groups(build(model, prefill(1.0, 1.0), precision)):
        if len({op.weights for op in ops}) > 1:
            first, *others = (op.module for op in ops)
            leaves = (module.rpartition(".")[2] for module in others)
            return ", ".join(dict.fromkeys(op.weights.name for op in ops)), ", ".join((first, *leaves))
    return ()


def _groups(graph: nx.DiGraph) -> Iterator[list[Gemm]]:
    """Projections packed into one, and the GEMMs of one layer's experts."""
    found: dict[tuple[object, ...], list[Gemm]] = {}
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            yield from _groups(op.body)
        elif is_expert_gemm(op):
            found.setdefault((op.layer, op.module.rpartition(".")[0]), []).append(op)
        elif isinstance(op, Gemm) and op.pack:
            found.setdefault((op.layer, op.pack, tuple(inputs_of(graph, name))), []).append(op)
    yield from found.values()

"""The order of passes as data: the passes of a deployment on a logical graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.deployment.own import checked
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, GraphError, GraphsimError
from graphsim.graph import STAGES, Pass, walk
from graphsim.ops.precision import Precision
from graphsim.passes import bitsandbytes
from graphsim.passes.fusions import fusions, packed_more
from graphsim.passes.pack import Pack
from graphsim.symbolic.expr import Expr
from graphsim.symbolic.refusal import CONFUSED, NotRecordable, reason
from graphsim.units import Num, short

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig
    from graphsim.lora.profile import EngineProfile
    from graphsim.passes.engine import Engine

Watch = Callable[[Pass, nx.DiGraph], None]
"""Called after each pass with the graph that it yielded."""


def passes_of(
    *,
    model: str,
    parallelism: Parallelism,
    precision: Precision,
    adapter: LoraConfig | None = None,
    engine: EngineProfile | None = None,
    context: Iterable[Pass] = (),
    own: Iterable[Pass] = (),
    present: Num = 1.0,
    tokens: Num = 1.0,
    whole: bool = True,
    architecture: str = "",
    prompts: bool = True,
) -> tuple[Pass, ...]:
    """The passes from the logical graph to what a device runs, a user's own after the others of their stage.

    Rarely used passes are imported on demand.
    model: its name, by which engines keep slots for embeddings; adapter: what runs; engine: None for logical nodes
    context: after the cut over tensor-parallel devices, that of context-parallel ranks
    present: 0 for a step without tokens, else 1; tokens: of the step; whole: whether its graph is the whole model
    architecture: of the device, "" where there is none; prompts: whether the step may have prompts
    Raises ConfigError for anything but a pass.
    """
    lowered = None if adapter is None or engine is None else _engine_of(model, adapter, engine, tokens)
    passes: list[Pass] = []
    if np.any(np.asarray(parallelism.ep) > 1):
        passes.append(_dealing(parallelism, engine, generates=not prompts))
    if adapter is not None:
        from graphsim.lora.injection import Buffers, Inject

        buffers = lowered.buffers if lowered else Buffers()
        passes.append(Inject(lora=adapter, buffers=buffers, everywhere=whole))
    if not np.all(np.less_equal(parallelism.tp, 1)):
        from graphsim.passes.shard import Shard

        passes.append(Shard(tp=parallelism.tp, sequence_parallel=bool(np.any(np.asarray(parallelism.sp) > 1))))
    passes += context
    if engine is None or engine.packs_projections:
        passes += [*packed_more(engine), Pack()]
    if bitsandbytes.serves(precision):
        rows, nested = (engine.fused_4bit_tokens, engine.nested_scales) if engine else (bitsandbytes.FUSED_TOKENS, True)
        passes.append(bitsandbytes.BesideProducts(fused_tokens=rows, nested=nested))
    if lowered is not None:
        from graphsim.passes.lower import lowering

        passes += lowering(lowered)
    if engine is not None and engine.shared_experts != "behind":
        from graphsim.passes.beside import LaunchBeside

        passes.append(LaunchBeside(exchange=engine.shared_experts))
    if engine is not None:
        passes += fusions(engine, model=model, architecture=architecture, prompts=prompts)
    adapted = 1.0 if adapter is None else np.greater(adapter.active_adapters, 0.0) * 1.0
    if engine is not None and engine.launch == "eager":
        passes.append(_eager(present=present, adapted=adapted, call_s=engine.call_s, calls=engine.module_calls))
    elif bitsandbytes.runs_eagerly(precision):
        passes.append(_eager(present=present, adapted=adapted, call_s=bitsandbytes.CALL_S))
    return in_order(passes, own)


def _eager(**settings: Any) -> Pass:
    from graphsim.passes.launches import LaunchEagerly

    return LaunchEagerly(**settings)


def _dealing(parallelism: Parallelism, engine: EngineProfile | None, *, generates: bool) -> Pass:
    """How experts are distributed, and how tokens reach them: without an engine a copy for each expert, as in GShard.

    DeepEP's kernels of low latency send a copy for each expert too.
    generates: whether every sequence of the step brings one token, so that kernels for few tokens exchange them
    """
    from graphsim.passes.experts import DealExperts

    kernels = engine.exchange_kernels(generates) if engine else ""
    return DealExperts(
        ep=parallelism.ep, tp=parallelism.tp, placement=parallelism.expert_placement,
        redundant=parallelism.redundant_experts,
        dispatch=engine.dispatch if engine and kernels != "low_latency" else "experts",
        sent_as=engine.dispatch_format if engine else "model", kernels=kernels,
    )  # fmt: skip


def _engine_of(model: str, lora: LoraConfig, profile: EngineProfile, tokens: Num) -> Engine:
    """The engine for the adapter."""
    from graphsim.passes.engine import Engine

    return Engine(
        profile=profile, lora=lora, embedding_slots=profile.has_embedding_slots(model),
        expert_layout=profile.experts.layout_of(model), tokens=tokens,
        defers=profile.fusions.completes_sums_of(model),
    )  # fmt: skip


def in_order(built_in: Iterable[Pass], own: Iterable[Pass]) -> tuple[Pass, ...]:
    """Passes by stage, and within a stage the built-in ones before a user's own.

    Raises ConfigError as `checked` does.
    """
    built_in, own = tuple(built_in), checked(own)
    return tuple(one for stage in STAGES for group in (built_in, own) for one in group if one.stage == stage)


class NeedsNumbers(ConfigError):
    """A pass needs a single number but got an array over scenarios."""


def run(passes: Iterable[Pass], graph: nx.DiGraph, after: Watch | None = None) -> nx.DiGraph:
    """The graph after all passes. after: sees each pass with the graph that it yielded.

    Raises NeedsNumbers if a pass cannot handle arrays over scenarios, NotRecordable if it cannot handle symbols.
    """
    for one in passes:
        try:
            graph = one(graph)
        except CONFUSED as error:
            if isinstance(error, GraphsimError | NotRecordable):
                raise
            if _holds(graph, Expr):
                raise NotRecordable(reason(error)) from None
            if not _holds(graph, np.ndarray):
                raise
            what = (
                "needs single numbers; found arrays over scenarios; use numpy.where, or evaluate one scenario at a time"
            )
            raise NeedsNumbers(f"pass {type(one).__name__} {what} ({reason(error)})") from None
        if after is not None:
            after(one, graph)
    return graph


def _holds(graph: nx.DiGraph, kind: type) -> bool:
    """Whether dimensions of a graph's operations are of a kind."""
    return any(isinstance(value, kind) for _, op, _ in walk(graph) for value in op.dims().values())


def check_own(own: Iterable[Pass]) -> Watch | None:
    """For `after`: run `check` after a user's own passes; None if there are none."""
    mine = tuple(own)

    def after(one: Pass, graph: nx.DiGraph) -> None:
        if any(one is given for given in mine):
            check(one, graph)

    return after if mine else None


def check(one: Pass, graph: nx.DiGraph) -> None:
    """For `after`: raise GraphError naming the pass unless its graph is valid at the pass's stage."""
    if not isinstance(graph, nx.DiGraph) or not len(graph):
        found = "a graph without nodes" if isinstance(graph, nx.DiGraph) else short(graph)
        raise GraphError(f"pass {type(one).__name__} yielded {found}")
    from graphsim.graph import validate

    try:
        validate(graph, one.stage)
    except GraphError as error:
        raise GraphError(f"after pass {type(one).__name__}: {error}") from None

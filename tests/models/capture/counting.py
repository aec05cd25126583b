"""The facts of a graphsim model in the terms of the truth: parameters, adapters, flops by kind as torch counts them.

Torch counts whole squares of queries and keys, since masks are no shapes; so attention's flops are counted here with
every key that the step has at hand for every query. All else is the graph's own work.
"""

from __future__ import annotations

from collections import Counter

import networkx as nx

import graphsim as gs
from graphsim.deployment.cache import FIRST_TOKEN, WHOLE_CACHE, RequestCache
from graphsim.deployment.cache import cache_of as request_cache
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Attention, Gemm, Op, Scan
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.precision import load_precision
from tests.models.capture.truth import SOURCE, Step

RANK = 8
TARGETS: dict[str, list[str] | str] = {"q_proj, v_proj": ["q_proj", "v_proj"], "all-linear": "all-linear"}
DEVICE = "h100-sxm"


def adapters_of(model: ModelConfig, targets: str) -> int | None:
    """Parameters of an adapter of rank 8; None where the targets match nothing."""
    try:
        return gs.lora_parameters(model, gs.LoraConfig(rank=RANK, target_modules=TARGETS[targets]))
    except gs.ConfigError:
        return None


def graph_of(model: ModelConfig, step: Step) -> nx.DiGraph:
    """The graph of a step; of encoder-decoders, of as many of the decoder's own tokens."""
    if model.source_encoder is None and not step.all_logits:
        phase = "decode" if step.kind == "decode" else "prefill"
        return gs.build_graph(model, phase, batch=step.batch, input_tokens=step.tokens)
    return build(model, _phase(model, step), load_precision("bf16"))


def _phase(model: ModelConfig, step: Step) -> Phase:
    if step.kind == "decode":
        return decode(step.batch, step.tokens, source_tokens=SOURCE)
    source = 0.0 if model.source_encoder is None else SOURCE
    return prefill(step.batch, step.tokens, all_logits=step.all_logits, source_tokens=source)


def flops_of(model: ModelConfig, step: Step) -> Counter[str]:
    """Matrix flops by kind: the truth's, and `scan` wherever there is one."""
    found: Counter[str] = Counter()
    for _, op, times in walk(graph_of(model, step)):
        flops = round(_flops(op, step) * times)
        if not op.once and (flops or isinstance(op, Scan)):
            found[_kind(op)] += flops
    return found


def _kind(op: Op) -> str:
    if isinstance(op, ExpertGemm):
        return "grouped"
    if isinstance(op, Scan):
        return "scan"
    return "weights" if isinstance(op, Gemm) or float(op.parameters) else "products"


def _flops(op: Op, step: Step) -> float:
    work = float(op.work().flops)
    if isinstance(op, Attention) and op.pairs:
        keys = float(op.kv_tokens)
        if op.window and step.kind != "decode":  # what lies behind the window is masked, not left out
            keys = max(keys, float(op.query_tokens))
        return work / float(op.pairs) * float(op.query_tokens) * keys / float(op.sequences)
    return work


def cache_of(model: ModelConfig) -> RequestCache:
    """What a sequence keeps between steps, in bytes at bf16."""
    if model.source_encoder is None:
        return gs.footprint(model, DEVICE, engine="reference").rooms[0].cache
    precision = load_precision("bf16")
    far, near = build(model, WHOLE_CACHE, precision), build(model, FIRST_TOKEN, precision)
    return request_cache(far, near, block_tokens=1.0)

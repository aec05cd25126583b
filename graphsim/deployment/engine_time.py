"""The engine's own time in addition to a step's kernels: request handling, and launches that are not in the graph.

    time to the first token = request + token · prompt + (kernels^p + host^p)^(1/p)
    host = kernels started · launch + layers with experts · block

A captured step does not wait for the host (`graphsim.lora.host`). If an engine's graphs have launches as nodes, as
with eager modules, the schedule accounts for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.brief import figures_text
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.workspace import step_limits
from graphsim.graph import walk
from graphsim.ops import Op
from graphsim.ops.type_guards import is_expert_gemm, is_launch
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineTime:
    """The engine's part of the time to the first token; zeros if its host was not measured.

    request_s: handling of the request in the server and back
    launches_s: time that the prompt step waits for the host to prepare it and launch kernels, in excess of the kernels'
        time
    """

    request_s: Num
    launches_s: Num

    def __repr__(self) -> str:
        return figures_text("EngineTime", self.to_dict())

    @property
    def total_s(self) -> Num:
        """Both."""
        return self.request_s + self.launches_s

    def to_dict(self) -> dict[str, Num]:
        """Plain numbers by name, for JSON."""
        return {"request_s": self.request_s, "launches_s": self.launches_s}


def request_s(deployment: Deployment, input_tokens: Num) -> Num:
    """Seconds to handle a request in the server, with a prompt of this many tokens."""
    if deployment.engine is None:
        return 0.0
    return deployment.engine.host.request_s + deployment.engine.host.token_s * input_tokens


def host_s(
    deployment: Deployment,
    graph: nx.DiGraph,
    tokens: Num,
    *,
    micro_batches: Num = 1.0,
    prompt_tokens: Num | None = None,
) -> Num:
    """Host seconds to launch a step with prompts.

    tokens: of the step
    micro_batches: that go through a pipeline one after another
    prompt_tokens: of each prompt, where these are the tokens of prompts that the engine may compute in several steps
    """
    host = deployment.engine.host if deployment.engine else None
    if host is None or not (host.launch_s or host.expert_layer_s):
        return 0.0
    started, blocks = _started(deployment, graph, micro_batches)
    steps: Num = 1.0
    if prompt_tokens is not None:
        steps, tokens = prompt_steps(deployment, tokens, prompt_tokens)
    captured = np.less_equal(tokens, host.captured_prompt_tokens)
    share = np.where(captured, host.captured_prompt_share, 1.0)[()]
    return steps * share * (started * host.launch_s + blocks * host.expert_layer_s)


def prompt_steps(deployment: Deployment, tokens: Num, prompt_tokens: Num) -> tuple[Num, Num]:
    """In how many steps an engine computes these tokens of prompts alike, and the tokens of the largest of them.

    prompt_tokens: of each prompt. Engines that do not split prompts put whole ones into a step, at least one of them
    """
    engine = deployment.engine
    stated = step_limits(deployment)[0]
    most = np.where(np.greater(stated, 0.0), stated, np.inf)[()]
    if engine is not None and not engine.host.chunked_prompts:
        most = np.maximum(np.floor(most / prompt_tokens), 1.0) * prompt_tokens
    return np.maximum(np.ceil(tokens / most), 1.0), np.minimum(tokens, most)


def joint_s(deployment: Deployment, kernels_s: Num, waited_s: Num) -> Num:
    """Seconds of a step with prompts, from those of its kernels and of the host that starts them."""
    if deployment.engine is None or isinstance(waited_s, float) and not waited_s:
        return kernels_s
    return deployment.engine.host.joint_s(kernels_s, waited_s)


def mapping_s(deployment: Deployment, tokens: Num) -> Num:
    """Host seconds to prepare the mapping from tokens to adapter slots for a step with prompts, which waits for it.

    All slots are assumed to be in use.
    """
    lora = deployment.adapter
    slot_s = deployment.engine.host.mapping_slot_s if deployment.engine else 0.0
    if lora is None or lora.strategy != "dynamic" or not slot_s:
        return 0.0
    there = np.greater(lora.rank * lora.active_adapters * lora.adapter_share, 0.0) * 1.0
    return slot_s * there * lora.adapter_share * tokens * lora.slots / 2.0


def _started(deployment: Deployment, graph: nx.DiGraph, micro_batches: Num) -> tuple[Num, Num]:
    """Kernels that one process of the engine starts for a step, and its layers with experts.

    Through a pipeline, processes start theirs side by side: of m micro-batches on s stages, m + s - 1 of the m s parts
    one after another. Every micro-batch is made of the same kernels; those of the first are counted, since a graph of
    symbols has more than there are requests for.
    """
    own = deployment.engine is not None and deployment.engine.eager_lora_launch_s > 0
    started: Num = 0.0
    blocks: dict[tuple[str, int], float] = {}
    stages = set[int]()
    for name, op, times in walk(graph):
        if is_launch(op):
            return 0.0, 0.0
        if op.stage is not None:
            if op.stage.micro_batch:
                continue
            stages.add(op.stage.number)
        if _is_started(op) and not (own and op.adapter):
            started = started + times * op.launches * (_has_work(op) if _is_of_experts(op) else 1.0)
        if is_expert_gemm(op):
            blocks[name.rpartition(".")[0], op.layer] = times
    count = max(len(stages), 1)
    share = (micro_batches + count - 1.0) / count
    return started * share, sum(blocks.values()) * share


def _is_of_experts(op: Op) -> bool:
    """Whether an operation is one kernel whatever its adapter's rank; others state their own number."""
    if not op.adapter:
        return False
    from graphsim.ops.lora_experts import ExpertLoraA, ExpertLoraAdd, ExpertLoraB

    return isinstance(op, ExpertLoraA | ExpertLoraB | ExpertLoraAdd)


def _has_work(op: Op) -> Num:
    """1 if an adapter's operation moves or sends anything, else 0, as at rank 0 or without adapted tokens."""
    work = op.work()
    return np.greater(work.memory_bytes + work.message_bytes, 0.0) * 1.0


def _is_started(op: Op) -> bool:
    """Whether an operation is a kernel of its own; operations between experts' GEMMs are counted with their block."""
    return op.launched and not op.once and (op.family != "moe" or is_expert_gemm(op))

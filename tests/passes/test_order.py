"""The order of passes is data, every graph between two passes is valid, and a broken pass is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.order import check, in_order
from graphsim.graph import STAGES, Pass, Rule, Stage, Step, Value, validate
from graphsim.lora.profile import load_profile
from graphsim.models.phase import Phase, decode, prefill
from graphsim.ops import Launch, Op
from graphsim.ops.lora_kernels import LoraFill

PHASES = (prefill(2.0, 48.0), decode(3.0, 100.0))
ENGINES = [name for name in gs.list_engines() if not load_profile(name).split_prompt_tokens]
"""Those that split steps have the passes of their bases; tests/passes/test_two_batches.py looks at the halves."""
PLAIN = gs.LoraConfig(rank=8, active_adapters=2)
MODELS = ("llama-3.1-8b", "gemma-2-9b", "gpt-2", "mixtral-8x7b", "gpt-oss-20b", "minimax-m2.5", "phi-3-mini")
ADAPTERS = {
    "none": None,
    "plain": PLAIN,
    "rank 0": gs.LoraConfig(rank=0, target_modules="all-linear"),
    "fully sharded": gs.LoraConfig(rank=16, fully_sharded_loras=True),
    "merged": gs.LoraConfig(strategy="merge"),
    "some layers": gs.LoraConfig(rank=8, layers_to_transform=[3, 4, 7], target_modules="all-linear"),
    "dora": gs.LoraConfig(variant="dora"),
    "vera": gs.LoraConfig(variant="vera", target_modules=["attn"]),
    "alora": gs.LoraConfig(variant="alora"),
    "qa-lora": gs.LoraConfig(variant="qa-lora", target_modules=["attn"]),
    "bd-lora": gs.LoraConfig(variant="bd-lora", rank=16, blocks=2, target_modules=["attn"]),
}
DEGREES = (
    gs.Parallelism(), gs.Parallelism(tp=2), gs.Parallelism(tp=2, sp=2), gs.Parallelism(tp=2, pp=2),
    gs.Parallelism(tp=np.array([1.0, 2.0])),
)  # fmt: skip


def deployed(model: str, engine: str, lora: gs.LoraConfig | None, degrees: gs.Parallelism) -> gs.Deployment:
    precision = "nf4" if engine in ("peft", "vllm") and model != "gpt-2" else None
    return gs.Deployment(model, parallelism=degrees, lora=lora, precision=precision, engine=engine)


def watched(deployment: gs.Deployment, phase: Phase) -> list[str]:
    """Names of the passes that yielded a valid graph, for one pipeline stage."""
    seen: list[str] = []

    def after(one: Pass, graph: nx.DiGraph) -> None:
        check(one, graph)
        seen.append(type(one).__name__)

    return seen if deployment.stages(phase, after) else []


PAIRS = [(engine, adapter) for number, (engine, adapter) in enumerate(product(ENGINES, ADAPTERS)) if number % 2 == 0]
"""Every second one, so that each engine meets half of the adapters and each adapter half of the engines."""


@pytest.mark.parametrize(("engine", "adapter"), PAIRS)
@pytest.mark.slow
def test_every_graph_between_two_passes_is_valid(engine: str, adapter: str) -> None:
    """On a third of the models, so that each engine and each adapter meets every one, and every one each degree."""
    place = ENGINES.index(engine) // 2 + list(ADAPTERS).index(adapter) // 2
    plain = adapter in ("none", "plain", "rank 0", "fully sharded", "merged", "some layers")
    if not plain and engine not in ("peft", "reference"):
        with pytest.raises(gs.InfeasibleError, match="lora.variant"):
            gs.build_graph(deployed("gpt-2", engine, ADAPTERS[adapter], gs.Parallelism()))
        return
    for number, model in list(enumerate(MODELS))[place % 3 :: 3]:
        degrees = DEGREES[(number + place) % len(DEGREES)]
        deployment = deployed(model, engine, ADAPTERS[adapter], degrees)
        for phase in PHASES:
            assert len(watched(deployment, phase)) == len(deployment.pass_order(phase)) * degrees.pp
            validate(deployment.step([phase, phase]), "launched" if engine in ("peft", "slora") else "lowered")


@pytest.mark.parametrize("engine", ["reference", "vllm", "peft"])
@pytest.mark.parametrize(
    "degrees", [gs.Parallelism(tp=2, ep=2), gs.Parallelism(ep=4), gs.Parallelism(tp=4, sp=4, ep=4)]
)
@pytest.mark.parametrize("model", ["mixtral-8x7b", "qwen3-30b-a3b"])
def test_dealt_experts_are_valid_too(model: str, degrees: gs.Parallelism, engine: str) -> None:
    for phase in PHASES:
        assert watched(deployed(model, engine, PLAIN, degrees), phase)[0] == "DealExperts"


def test_the_order_follows_from_the_description() -> None:
    def names(*described: object) -> list[str]:
        return [type(one).__name__ for one in deployed(*described).pass_order(PHASES[0])]  # type: ignore[arg-type]

    assert names("llama-3.1-8b", "reference", None, gs.Parallelism()) == ["Pack"]
    assert names("llama-3.1-8b", "vllm", PLAIN, gs.Parallelism(tp=2)) == [
        "Inject", "Shard", "PackMore", "Pack", "BesideProducts", "Fuse", "FuseExperts", "FuseTable", "ReduceTogether",
        "QuantiseAhead", "FuseNorms",
    ]  # fmt: skip
    assert names("mixtral-8x7b", "peft", PLAIN, gs.Parallelism(ep=2)) == [
        "DealExperts", "Inject", "BesideProducts", "WriteExperts", "CallModules", "LaunchEagerly"
    ]  # fmt: skip
    assert names("llama-3.1-8b", "sglang", ADAPTERS["merged"], gs.Parallelism()) == [
        "Inject", "PackMore", "Pack", "ReduceTogether", "FuseRope", "FuseNorms"
    ]  # fmt: skip


def test_passes_are_values() -> None:
    described = ("mixtral-8x7b", "peft", PLAIN, gs.Parallelism(tp=2, ep=4, dp=2))
    assert deployed(*described).pass_order(PHASES[0]) == deployed(*described).pass_order(PHASES[0])


@dataclass(frozen=True, slots=True)
class Early(Pass):
    """Changes nothing, as the following ones but for their stages."""

    stage: ClassVar[Stage] = "logical"

    def rule(self, graph: nx.DiGraph) -> Rule:
        return lambda name, op, inputs: [(name, op, inputs)]


class Middle(Early):
    stage: ClassVar[Stage] = "sharded"


class Late(Early):
    stage: ClassVar[Stage] = "lowered"


class Behind(Early):
    stage: ClassVar[Stage] = "launched"


def test_own_passes_stand_behind_the_others_of_their_stage() -> None:
    own = (Behind(), Late(), Middle(), Early())
    found = [
        type(one).__name__
        for one in replace(deployed("gpt-2", "peft", PLAIN, DEGREES[1]), passes=own).pass_order(PHASES[0])
    ]
    assert found == [
        "Inject", "Early", "Shard", "Middle", "WriteExperts", "CallModules", "Late", "LaunchEagerly", "Behind"
    ]  # fmt: skip
    plain = replace(deployed("gpt-2", "peft", PLAIN, DEGREES[1]), passes=())
    assert gs.to_text(replace(plain, passes=own).decode(4.0, 9.0)) == gs.to_text(plain.decode(4.0, 9.0))


@pytest.mark.parametrize("stage", STAGES)
def test_passes_of_one_stage_keep_the_order_in_which_they_are_given(stage: Stage) -> None:
    one, two = (type(name, (Early,), {"stage": stage})() for name in ("One", "Two"))
    assert in_order((), (two, one)) == (two, one) and in_order((one,), (two,)) == (one, two)


def test_what_is_no_pass_is_refused() -> None:
    with pytest.raises(
        gs.ConfigError, match="passes holds 'fuse', which is not a pass; expected instances of a subclass"
    ):
        in_order((), ("fuse",))  # type: ignore[arg-type]
    with pytest.raises(gs.ConfigError, match=r"Odd\.stage = 'sharred' is not allowed; did you mean 'sharded'"):
        in_order((), (type("Odd", (Early,), {"stage": "sharred"})(),))


class DropsAnInput(Early):
    """Forgets the second input of every node that has two."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        return lambda name, op, inputs: [(name, op, inputs[:1])]


class DoublesASize(Early):
    """Makes every norm twice as large."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield name, replace(op, rows=2 * op.rows) if hasattr(op, "rows") else op, inputs  # type: ignore[call-arg]

        return rule


class NegativeSize(Early):
    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield name, replace(op, m=-op.m) if hasattr(op, "m") else op, inputs  # type: ignore[call-arg]

        return rule


class KernelTooEarly(Middle):
    """Adds an engine's kernel to a sharded graph."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if op.launched:
                yield f"{name}.fill", LoraFill(elems=1.0), []
                inputs = [*inputs, Value(f"{name}.fill")]
            yield name, op, inputs

        return rule


class LaunchTooEarly(Late):
    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if op.launched:
                yield f"{name}.launch", Launch(), []
                inputs = [*inputs, Value(f"{name}.launch")]
            yield name, op, inputs

        return rule


class ForgetsLaunches(Behind):
    """Drops the last input of what has a launch."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        return lambda name, op, inputs: [(name, op, [v for v in inputs if not v.node.endswith("norm.launch")])]


@pytest.mark.parametrize(
    ("broken", "engine", "problem"),
    [
        (DropsAnInput(), "reference", "is unused|expects"),
        (DoublesASize(), "reference", "expects"),
        (NegativeSize(), "vllm", "has m = -"),
        (KernelTooEarly(), "vllm", "LoraFill, which no sharded graph holds"),
        (LaunchTooEarly(), "vllm", "Launch, which no lowered graph holds"),
        (ForgetsLaunches(), "peft", "is unused"),
    ],
)
def test_a_broken_pass_is_named(broken: Pass, engine: str, problem: str) -> None:
    deployment = replace(deployed("llama-3.1-8b", engine, PLAIN, DEGREES[1]), passes=(broken,))
    with pytest.raises(gs.GraphError, match=f"after pass {type(broken).__name__}: node .* ({problem})"):
        watched(deployment, PHASES[0])

"""A Deployment is said once and asked many things: every verb takes it in place of the arguments it is made of."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict, dataclass, is_dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import graphsim as gs
from graphsim.graph import Rule, Step, Value
from graphsim.ops import Norm, Op

LORA = gs.LoraConfig(rank=16, max_loras=4)
ASKED: dict[str, Any] = {
    "model": "llama-3.2-1b", "hardware": "h100-sxm", "parallelism": gs.Parallelism(tp=2), "lora": LORA,
    "precision": "fp8", "engine": "sglang",
}  # fmt: skip
REQUESTS = {"batch": 3, "input_tokens": 200, "output_tokens": 20}
Verb = Callable[..., Any]


def deployment(**changes: Any) -> gs.Deployment:
    return gs.Deployment(**ASKED | changes)


def plain(answer: Any) -> Any:
    """What two answers are compared by."""
    if isinstance(answer, gs.Estimate):
        return answer.to_dict()
    if isinstance(answer, gs.CompiledStep):
        return answer(prefill_tokens=100.0, decode_batch=4.0, context=50.0)
    if isinstance(answer, pd.DataFrame):
        return answer.to_json()
    if hasattr(answer, "nodes"):
        return gs.to_text(answer)
    return asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else repr(answer)


TAKES_REQUESTS: dict[str, Verb] = {
    "simulate": gs.simulate,
    "compare_lora": gs.compare_lora,
    "break_even": gs.break_even,
    "break_even_curve": gs.break_even_curve,
    "lora_advice": gs.lora_advice,
    "sensitivity": gs.sensitivity,
}
TAKES_NONE: dict[str, Verb] = {
    "compile_step": gs.compile_step,
    "footprint": gs.footprint,
    "kv_tokens_left": gs.kv_tokens_left,
    "adapters_that_fit": lambda *given, **asked: gs.adapters_that_fit(*given, **asked, kv_tokens=1000),
    "lifecycle": gs.lifecycle,
}


@pytest.mark.parametrize("name", TAKES_REQUESTS)
def test_a_verb_about_requests_takes_a_deployment_for_its_arguments(name: str) -> None:
    verb = TAKES_REQUESTS[name]
    assert plain(verb(deployment(), **REQUESTS)) == plain(verb(**ASKED, **REQUESTS))


@pytest.mark.parametrize("name", TAKES_NONE)
def test_a_verb_about_a_deployment_takes_it_for_its_arguments(name: str) -> None:
    verb = TAKES_NONE[name]
    assert plain(verb(deployment())) == plain(verb(**ASKED))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_graphs_are_built_for_a_deployment_with_or_without_a_device(phase: str) -> None:
    asked = {name: value for name, value in ASKED.items() if name != "hardware"}
    expected = gs.to_text(gs.build_graph(**asked, phase=phase, batch=2))
    assert gs.to_text(gs.build_graph(deployment(), phase, batch=2)) == expected
    assert gs.to_text(gs.build_graph(gs.Deployment(**asked), phase, batch=2)) == expected


@pytest.mark.parametrize("name", [*TAKES_REQUESTS, *TAKES_NONE])
@pytest.mark.parametrize("twice", ["hardware", "lora", "parallelism", "precision", "engine"])
def test_a_deployment_and_what_it_says_already_are_one_too_many(name: str, twice: str) -> None:
    verb = (TAKES_REQUESTS | TAKES_NONE)[name]
    with pytest.raises(gs.ConfigError, match=f"{twice} given together with a Deployment, which says it already"):
        verb(deployment(), **{twice: ASKED[twice]})


def test_what_prices_need_a_device_says_so() -> None:
    with pytest.raises(gs.ConfigError, match="hardware = None is not allowed"):
        gs.simulate(deployment(hardware=None))


def test_the_old_order_of_arguments_is_the_verbs_still() -> None:
    degrees = gs.Parallelism(tp=2)
    one = gs.simulate("gpt-2", "l4", 2, 100, 10, gs.Parallelism(), LORA, "bf16", "roofline", "vllm")
    other = gs.simulate(gs.Deployment("gpt-2", "l4", lora=LORA, cost="roofline", engine="vllm"), 
                        batch=2, input_tokens=100, output_tokens=10)  # fmt: skip
    assert one.to_dict() == other.to_dict()
    assert gs.compile_step("gpt-2", "h100-sxm", degrees, engine="reference")(decode_batch=1) > 0


def test_help_shows_what_a_verb_takes() -> None:
    names = list(inspect.signature(gs.simulate).parameters)
    assert names[:5] == ["model", "hardware", "batch", "input_tokens", "output_tokens"]
    assert list(inspect.signature(gs.compare_lora).parameters) == names


def test_a_deployment_never_changes() -> None:
    one = deployment()
    with pytest.raises(FrozenInstanceError):
        one.lora = None  # type: ignore[misc]
    faster = replace(one, hardware="b200-sxm")
    assert (one.device.name, faster.device.name) == ("h100-sxm", "b200-sxm")
    assert gs.simulate(faster, **REQUESTS).tpot_s < gs.simulate(one, **REQUESTS).tpot_s


def test_a_variation_is_checked_as_the_first_was() -> None:
    with pytest.raises(gs.ConfigError, match="does not divide the 32 attention heads"):
        replace(deployment(), parallelism=gs.Parallelism(tp=3))
    with pytest.raises(gs.ConfigError, match="engine = 'vlm' is not known; did you mean 'vllm'"):
        replace(deployment(), engine="vlm")


def test_a_models_own_adapter_runs_unless_another_is_given() -> None:
    model = gs.load_model("llama-3.2-1b")
    model.lora_config = LORA
    own = gs.Deployment(model, "h100-sxm", engine="reference")
    assert own.adapter is LORA and model.lora_config is LORA
    assert replace(own, lora=None).adapter is None
    assert gs.Deployment(model, "h100-sxm", lora=replace(LORA, enabled=False), engine="reference").adapter is None


def test_a_deployment_goes_to_another_process_and_says_the_same_there() -> None:
    there = pickle.loads(pickle.dumps(deployment()))
    assert gs.simulate(there, **REQUESTS).to_dict() == gs.simulate(deployment(), **REQUESTS).to_dict()


def test_the_engine_is_the_verbs_own_where_the_deployment_names_none() -> None:
    silent = deployment(engine=None)
    assert gs.simulate(silent).settings["engine"] == "vllm"
    assert gs.footprint(silent) == gs.footprint(deployment(engine="vllm"))
    assert gs.footprint(silent) != gs.footprint(deployment(engine="reference"))


def test_a_sweep_over_deployments_is_every_deployment_simulated_alone() -> None:
    several = [deployment(), deployment(lora=None, cost="roofline"), deployment(hardware="l4", precision="bf16",
               lora=gs.LoraConfig(rank=8, variant="rslora", strategy="merge"), engine=None)]  # fmt: skip
    table = gs.sweep(several, batch=[1, 8], input_tokens=100, output_tokens=[1, 20])
    assert len(table) == 12 and list(table["strategy"][::4]) == ["dynamic", "base", "merge"]
    for number, row in enumerate(table.to_dict("records")):
        alone = gs.simulate(several[number // 4], **{name: row[name] for name in REQUESTS})
        expected = [alone.ttft_s, alone.tpot_s, alone.latency_s, alone.memory.total_bytes]
        found = [row[name] for name in ("ttft_s", "tpot_s", "latency_s", "memory_bytes")]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_best_ranks_deployments() -> None:
    table = gs.best([deployment(), deployment(hardware="l4", precision="bf16")], goal="tokens_per_s", batch=[1, 8])
    assert list(table["hardware"])[0] == "h100-sxm" and list(table["devices"]) == [2.0] * len(table)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tp": [1, 2]}, "tp given together with deployments, which say it already; allowed: batch, input_tokens"),
        ({"hardware": "l4"}, "hardware given together with deployments"),
        ({"models": [deployment(), "gpt-2"]}, "'gpt-2' is given together with deployments"),
        ({"models": [deployment(lora=gs.LoraConfig(rank=[8, 16]))]}, "holds arrays of scenarios"),
    ],
)
def test_a_sweep_over_deployments_takes_nothing_they_say_already(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(gs.ConfigError, match=message):
        gs.sweep(**{"models": [deployment()]} | asked)


def test_a_deployment_is_told_at_a_glance() -> None:
    assert repr(deployment()) == "Deployment(llama-3.2-1b, h100-sxm, fp8, tp=2, lora rank=16 dynamic, sglang)"


@dataclass(frozen=True, slots=True)
class DropNorms(gs.Pass):
    """A pass of a user's own."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            yield inputs[0] if isinstance(op, Norm) else (name, op, inputs)

        return rule


@pytest.mark.parametrize("name", ["simulate", "compile_step", "sweep", "compare_lora", "best", "build_graph"])
def test_a_pass_of_ones_own_reaches_every_verb(name: str) -> None:
    def asked(passes: list[gs.Pass]) -> Any:
        one = deployment(passes=passes, cost="roofline", engine="reference")
        answers: dict[str, Verb] = {
            "simulate": lambda: gs.simulate(one).tpot_s,
            "compile_step": lambda: gs.compile_step(one)(generating=1.0),
            "sweep": lambda: gs.sweep([one])["tpot_s"][0],
            "compare_lora": lambda: gs.compare_lora(one)["tpot_s"]["merge"],
            "best": lambda: gs.best([one])["tpot_s"].iloc[0],
            "build_graph": lambda: len(gs.unroll(gs.build_graph(one))),
        }
        return answers[name]()

    assert asked([DropNorms()]) < asked([])


def test_a_pass_is_part_of_a_deployments_structure_by_its_fields_not_by_the_object() -> None:
    plain, once, again = (
        deployment(passes=passes, engine="reference") for passes in ([], [DropNorms()], [DropNorms()])
    )
    assert gs.simulate(once).tpot_s == gs.simulate(again).tpot_s < gs.simulate(plain).tpot_s


def test_what_is_no_pass_is_refused_where_the_deployment_is_made() -> None:
    with pytest.raises(
        gs.ConfigError, match=r"passes holds the class DropNorms; give an instance of it, " r"DropNorms\(…\)"
    ):
        deployment(passes=[DropNorms])


def test_prices_that_are_not_known_are_refused_where_the_deployment_is_made() -> None:
    with pytest.raises(gs.ConfigError, match="cost = 'rofline' is not known; did you mean 'roofline'"):
        deployment(cost="rofline")
    assert deployment(cost="roofline").cost_model == "roofline"


def test_an_adapter_that_the_engine_does_not_run_is_refused_where_it_would_run() -> None:
    dora = gs.LoraConfig(rank=16, variant="dora")
    with pytest.raises(
        gs.ConfigError, match="engine 'sglang' .variant.: LoRA serving currently doesn't support DoRA adapters"
    ):
        gs.simulate(deployment(lora=dora))
    merged, off = replace(dora, strategy="merge"), replace(dora, enabled=False)
    assert gs.simulate(deployment(lora=merged)).tpot_s > 0.0, "merged weights are any engine's"
    assert gs.simulate(deployment(lora=off)).tpot_s > 0.0, "an adapter that is disabled asks nothing of an engine"
    assert gs.simulate(deployment(lora=dora, engine="peft")).tpot_s > 0.0

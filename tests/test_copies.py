"""What a call returns can be copied and sent to another process, and shows itself in a few lines."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import graphsim as gs
from graphsim.serving.fleet.adapter_routers import AdapterAffinity, Rendezvous, StaticMap
from graphsim.serving.fleet.placement import Placed
from graphsim.serving.fleet.scores import Dynamo, PrefixAware, Weighted
from graphsim.serving.simulator import Simulator

MODEL, DEVICE = "llama-3.2-1b", "l40s"
ADAPTERS = gs.Deployment(MODEL, DEVICE, lora=gs.LoraConfig(max_loras=2))
TRAFFIC = gs.Traffic.poisson(rate=4, requests=6, input_tokens=20, output_tokens=4, adapters=2)
DRAFTED = gs.Speculation(draft="llama-3.2-1b", tokens=2, acceptance=0.5)

RESULTS: dict[str, Callable[[], Any]] = {
    "estimate": lambda: gs.simulate(MODEL, DEVICE, batch=[1, 2], lora=gs.LoraConfig()),
    "estimate with a draft": lambda: gs.simulate("llama-3.1-8b", DEVICE, speculation=DRAFTED),
    "estimate of the roofline": lambda: gs.simulate(MODEL, DEVICE, cost="roofline"),
    "phase": lambda: gs.simulate(MODEL, DEVICE).decode,
    "training step": lambda: gs.train(MODEL, DEVICE, seq_len=128),
    "memory of a training step": lambda: gs.train(MODEL, DEVICE, seq_len=128).memory,
    "plan": lambda: gs.fine_tune_plan(MODEL, DEVICE, seq_len=128, tokens=1e5),
    "service": lambda: gs.serve(ADAPTERS, TRAFFIC),
    "fleet": lambda: gs.serve(ADAPTERS, TRAFFIC, replicas=2),
    "split service": lambda: gs.serve(ADAPTERS, TRAFFIC, prefill=ADAPTERS, prefill_replicas=1),
    "capacity": lambda: gs.capacity(MODEL, DEVICE, TRAFFIC.scaled(1.0), lora=ADAPTERS.lora, ttft_s=0.5),
    "simulator": lambda: Simulator(MODEL, DEVICE),
    "compiled step": lambda: gs.compile_step(MODEL, DEVICE),
    "explanation": lambda: gs.explain(gs.simulate(MODEL, DEVICE)),
    "advice": lambda: gs.lora_advice(MODEL, DEVICE, lora=gs.LoraConfig()),
    "break-even": lambda: gs.break_even(MODEL, DEVICE),
    "lifecycle": lambda: gs.lifecycle(MODEL, DEVICE, gs.LoraConfig()),
    "footprint": lambda: gs.footprint(ADAPTERS),
    "fit": lambda: gs.fit(MODEL, DEVICE),
    **{kind.__name__: kind for kind in (AdapterAffinity, Rendezvous, StaticMap, Placed, Weighted, PrefixAware, Dynamo)},
}


@pytest.fixture(scope="module", params=RESULTS)
def result(request: pytest.FixtureRequest) -> Any:
    return RESULTS[request.param]()


@pytest.mark.slow
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_says_the_same(result: Any, copied: Callable[[Any], Any]) -> None:
    other = copied(result)
    assert repr(other) == repr(result)
    if hasattr(result, "to_dict"):
        assert other.to_dict() == result.to_dict()


@pytest.mark.slow
def test_it_shows_itself_in_a_few_lines_that_do_not_name_a_place_in_memory(result: Any) -> None:
    assert repr(result).count("\n") < 10
    assert len(repr(result)) < 1000
    assert " at 0x" not in repr(result)


def test_a_copied_estimate_answers_further_questions() -> None:
    estimate = gs.simulate(MODEL, DEVICE, lora=gs.LoraConfig())
    other = pickle.loads(pickle.dumps(estimate))
    assert other.decode.to_frame().equals(estimate.decode.to_frame())
    assert gs.explain(other).causes("tpot_s") == gs.explain(estimate).causes("tpot_s")


def test_every_public_name_is_imported_with_a_star() -> None:
    names: dict[str, Any] = {}
    exec("from graphsim import *", names)
    assert set(gs.__all__) <= names.keys()

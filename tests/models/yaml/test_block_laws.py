"""Whatever a block holds, it is a model like any other: valid at every stage, cut, adapted, recorded, on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

import graphsim as gs
from graphsim.compile.reasons import why_not_recorded
from graphsim.deployment.inference import Inference, Requests
from graphsim.graph import validate, walk
from graphsim.lora.injection import inject
from graphsim.models.build import build
from graphsim.models.phase import Phase, decode, mixed, prefill
from graphsim.ops import Repeat
from graphsim.ops.precision import load_precision
from graphsim.passes.shard import shard
from tests.models.yaml.everything import LAYERS, document

BF16 = load_precision("bf16")
NAMES = (*LAYERS, "twice")
ALONE: dict[str, Phase] = {
    "prefill": prefill(2.0, 24.0, source_tokens=7.0),
    "every logit": prefill(2.0, 24.0, all_logits=True),
    "chunk": prefill(2.0, 24.0, 40.0, source_tokens=7.0),
    "decode": decode(3.0, 50.0, source_tokens=7.0),
}
BOTH = mixed(ALONE["prefill"], ALONE["decode"])
ADAPTERS: dict[str, Any] = {
    "none": None,
    "q and v": gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj"]),
    "all-linear": gs.LoraConfig(rank=8, target_modules="all-linear"),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return gs.load_model(document())


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("phase", ALONE.values(), ids=ALONE)
def test_every_step_is_a_valid_graph_whole_and_cut(model: Any, phase: Phase, adapter: str) -> None:
    graph = inject(build(model, phase, BF16), ADAPTERS[adapter])
    validate(graph, "logical")
    for sequence_parallel in (False, True):
        validate(shard(graph, 2.0, sequence_parallel), "sharded")


def test_a_mixed_step_has_the_products_of_both_and_the_program_of_a_prompt(model: Any) -> None:
    rows = {
        name: op.m for name, op, _ in walk(build(model, BOTH, BF16)) if getattr(op, "module", "").endswith("first_proj")
    }
    assert list(rows.values()) == [2 * 24 + 3]


def test_every_weight_is_in_every_step_and_stage(model: Any) -> None:
    def parameters(phase: Phase, stage: range | None = None) -> float:
        return sum(op.parameters * times for _, op, times in walk(build(model, phase, BF16, stage)))

    for phase in (*ALONE.values(), BOTH):
        assert parameters(phase) == model.num_parameters
    half = model.num_layers // 2
    parts = [parameters(BOTH, range(half)), parameters(BOTH, range(half, model.num_layers))]
    assert sum(parts) == model.num_parameters + 64 * 128  # a copy of the table that the head shares


def test_equal_blocks_are_one_body_whatever_they_are_called() -> None:
    text = document("grouping")
    text["blocks"]["again"] = text["blocks"]["grouping"]
    text["layers"] = [{"block": "grouping"}, {"block": "again"}, {"repeat": 2, "block": "grouping"}]
    graph = build(gs.load_model(text), ALONE["decode"], BF16)
    assert [op.times for _, op in graph.nodes(data="op") if isinstance(op, Repeat)] == [4]


def test_a_document_written_and_read_again_is_the_same_model(model: Any) -> None:
    again = gs.load_model(yaml.safe_load(yaml.safe_dump(document(), sort_keys=False)))
    assert (again.stem, again.layers, again.head) == (model.stem, model.layers, model.head)


CHOICES: dict[str, dict[str, Any]] = {
    "alone": {},
    "tensor parallel": {"parallelism": gs.Parallelism(tp=2)},
    "pipeline": {"parallelism": gs.Parallelism(pp=2)},
    "q and v": {"lora": ADAPTERS["q and v"], "parallelism": gs.Parallelism(tp=2)},
    "all-linear": {"lora": ADAPTERS["all-linear"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "vllm"])
@pytest.mark.parametrize("choice", CHOICES)
def test_arrays_of_scenarios_are_scenarios_one_by_one(model: Any, choice: str, engine: str) -> None:
    given = {"engine": engine, **CHOICES[choice]}
    batch, length = np.array([1.0, 4.0, 9.0]), np.array([7.0, 100.0, 64.0])
    many = gs.simulate(model, "h100-sxm", batch, length, 8, **{"engine": "reference", **given})
    for i in range(3):
        one = gs.simulate(model, "h100-sxm", batch[i], length[i], 8, **{"engine": "reference", **given})
        for name in ("ttft_s", "tpot_s", "latency_s"):
            assert 0 < getattr(one, name) < 1
            assert getattr(many, name)[i] == pytest.approx(getattr(one, name), rel=1e-12), (i, name)


@pytest.mark.slow
@pytest.mark.parametrize("cost", ["roofline", "calibrated"])
@pytest.mark.parametrize("engine", ["reference", "vllm"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_node_is_recorded(name: str, engine: str, cost: str) -> None:
    deployment = gs.Deployment(document(name), "h100-sxm", engine=engine, cost=cost)
    inference = Inference(deployment=deployment, requests=Requests(batch=5, input_tokens=30, output_tokens=4))
    assert why_not_recorded(inference) == []

"""What exporters and summaries make of a node: its kind, from what the operation says of itself."""

from __future__ import annotations

from typing import Any

import pytest

import graphsim as gs
from graphsim.display.nodes import shape_of
from graphsim.graph import walk
from graphsim.ops import Op
from graphsim.ops.kinds import Kind, kind_of


def ops(model: str = "llama-3.1-8b", engine: str = "reference", tp: int = 1, **lora: Any) -> dict[str, Op]:
    adapter = gs.LoraConfig(rank=8, **lora)
    parallelism = gs.Parallelism(tp=tp)
    graph = gs.build_graph(model, "decode", lora=adapter, engine=engine, parallelism=parallelism)
    return {name.partition(".")[2] or name: op for name, op, _ in walk(graph)}


@pytest.mark.parametrize("variant", ["lora", "dora", "vera", "qa-lora", "bd-lora"])
@pytest.mark.parametrize("engine", ["reference", "peft"])
def test_all_that_an_adapter_computes_is_lora(variant: str, engine: str) -> None:
    found = ops(engine=engine, variant=variant)
    own = {kind_of(op) for op in found.values() if op.adapter and op.launched}
    assert own == {Kind.LORA}
    assert Kind.LORA not in {kind_of(op) for op in found.values() if not op.adapter}


def test_pefts_scaling_is_the_adapters_and_starting_kernels_is_nobodys() -> None:
    found = ops(engine="peft")
    assert kind_of(found["q_proj.lora_scale"]) is Kind.LORA
    start = found["q_proj.lora_scale.launch"]
    assert start.adapter and kind_of(start) is Kind.OTHER


def test_only_what_is_done_once_is_a_merge() -> None:
    assert kind_of(ops(strategy="merge")["q_proj.lora_merge"]) is Kind.MERGE
    written = ops("mixtral-8x7b", "peft")["expert_down_proj.lora_delta"]
    assert not written.once and kind_of(written) is Kind.LORA


def test_an_adapters_collectives_are_communication() -> None:
    found = ops(tp=2, fully_sharded_loras=True)
    own = [op for op in found.values() if op.adapter and kind_of(op) is Kind.COLLECTIVE]
    assert own and all(not op.joins_base for op in own)


@pytest.mark.parametrize("name", ["qkv_proj", "q_proj.lora_a", "q_proj.lora_add", "q_proj.dora_scale"])
def test_results_have_as_many_rows_as_tokens(name: str) -> None:
    op = ops(variant="dora")[name]
    assert shape_of(op)[0] == 1 == op.out_rows

"""A new variant of LoRA is one file: here LoRA-XS, which lies in a folder beside the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora import variants
from tests.lora.variant_laws import LAWS, Law

FOLDER = Path(__file__).parent / "more_variants"
RANK = 64
TRAINED = 32 * 2 * RANK * RANK
RESIDENT = 32 * RANK * ((4096 + 4096) + (4096 + 1024)) + TRAINED


@pytest.fixture(autouse=True)
def _file_is_there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(variants, "__path__", [*variants.__path__, str(FOLDER)])
    yield
    sys.modules.pop("graphsim.lora.variants.lora_xs", None)


def adapter(**fields: Any) -> gs.LoraConfig:
    return gs.LoraConfig(rank=RANK, target_modules=["q_proj", "v_proj"], variant="lora-xs", **fields)


def test_only_the_matrix_between_the_factors_is_trained() -> None:
    """LoRA-XS, table 1: r² for each module."""
    assert gs.lora_parameters("llama-3.1-8b", adapter()) == TRAINED == 262_144
    assert gs.lora_parameters("llama-3.1-8b", adapter(strategy="merge")) == TRAINED


def test_all_factors_lie_in_memory() -> None:
    bytes_of = {"reference": 2, "peft": 4}
    for engine, each in bytes_of.items():
        memory = gs.simulate("llama-3.1-8b", "h100-sxm", lora=adapter(), engine=engine).memory
        assert memory.adapters_bytes == each * RESIDENT
    table = gs.adapter_footprint("llama-3.1-8b", adapter())
    assert table["parameters"].sum() == RESIDENT and set(table["factor"]) == {"a", "r", "b"}
    assert set(table["rank"]) == {RANK}


def test_it_runs_on_a_tensor_parallel_group_and_slower_than_plain_lora() -> None:
    asked: dict[str, Any] = {"parallelism": gs.Parallelism(tp=2), "engine": "peft"}
    lora = gs.LoraConfig(rank=RANK, target_modules=["q_proj", "v_proj"])
    found, plain, base = (
        gs.simulate("llama-3.1-8b", "h100-sxm", 4, 64, 8, lora=adapter, **{"engine": "reference", **asked})
        for adapter in (adapter(), lora, None)
    )
    assert found.latency_s > plain.latency_s > base.latency_s
    graph = gs.build_graph("llama-3.1-8b", "decode", lora=adapter(), **asked)
    own = {name for name, op, _ in walk(graph) if op.adapter}
    assert own == {name for name, _, _ in walk(graph)} - {
        name for name, _, _ in walk(gs.build_graph("llama-3.1-8b", "decode", **asked))
    }
    assert any(name.endswith("q_proj.lora_r") for name in own)


def test_each_expert_has_a_matrix_of_its_own_wherever_experts_are() -> None:
    lora = gs.LoraConfig(rank=RANK, target_modules=["down_proj"], variant="lora-xs", active_adapters=3)
    assert gs.lora_parameters("mixtral-8x7b", lora) == 32 * 8 * RANK * RANK
    for parallelism in (gs.Parallelism(tp=2), gs.Parallelism(tp=2, ep=2)):
        graph = gs.build_graph("mixtral-8x7b", "decode", 4, lora=lora, parallelism=parallelism)
        gs.validate(graph, "lowered")
        (square,) = (op for name, op, _ in walk(graph) if name.endswith("lora_r"))
        (down,) = (op for name, op, _ in walk(graph) if name.endswith("lora_a"))
        assert (square.n, square.k, square.adapters) == (RANK, RANK, 3)
        assert square.m == down.m == 4 * 2 / parallelism.ep
        assert square.parameters == 8 / parallelism.ep * RANK * RANK


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_it_is_held_to_the_laws_of_all_variants(law: Law) -> None:
    assert not list(law("lora-xs"))


def test_engines_with_fused_kernels_refuse_it_and_errors_name_it() -> None:
    with pytest.raises(
        gs.ConfigError, match="variant = lora-xs .* engine 'vllm' .*: its kernels run .*, or strategy merge"
    ):
        gs.simulate("llama-3.1-8b", "h100-sxm", lora=adapter(), engine="vllm")
    with pytest.raises(gs.ConfigError, match="did you mean 'lora-xs'"):
        gs.LoraConfig(variant="lora-xd")


def test_a_file_without_a_variant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nothing_there.py").write_text('"""No variant."""\n')
    monkeypatch.setattr(variants, "__path__", [*variants.__path__, str(tmp_path)])
    with pytest.raises(gs.ConfigError, match=r"'nothing_there' defines no variant; expected VARIANT"):
        gs.LoraConfig()
    sys.modules.pop("graphsim.lora.variants.nothing_there", None)

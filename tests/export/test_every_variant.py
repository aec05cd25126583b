"""Law: every variant, under every engine and strategy, is drawn, exported, explained and counted, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.lora.variants import known

MODEL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}  # fmt: skip
OPTIONS = {"vblora": {"vector_length": 16}, "oft": {"oft_block_size": 16}, "road": {"group_size": 16}}
"""Where the defaults do not divide a small model."""

OFTEN = ("oft", "vblora")
"""An input that is changed ahead of a linear, and parameters that all modules share."""

CASES = [
    (variant, engine, strategy)
    for place, (variant, kind) in enumerate(known().items())
    for engine in ("reference", "peft", "vllm", "sglang")
    for strategy in ("dynamic", *(() if kind.unmerged else ("merge",)))
    if kind.fused or variant in OFTEN or engine != ("reference", "peft")[place % 2]
    if kind.fused or strategy == "dynamic" or engine in ("reference", "peft")
]
"""What engines fuse meets all of them; other variants one of those that run them, in turn."""


def adapter(variant: str, strategy: str = "dynamic") -> gs.LoraConfig:
    targets = None if known()[variant].copies else "all-linear"
    options = OPTIONS.get(variant, {})
    return gs.LoraConfig(
        variant=variant, rank=4, strategy=strategy, target_modules=targets, blocks=2, options=options
    )  # fmt: skip


def drawn(**asked: Any) -> None:
    for phase in ("prefill", "decode"):
        graph = gs.build_graph(MODEL, phase, 2, 16, **asked)
        assert gs.to_dot(graph).startswith("digraph") and gs.to_text(graph)
        text = gs.to_json(graph)
        assert gs.to_json(gs.from_json(text)) == text


@pytest.mark.parametrize("variant", [v if v in OFTEN else pytest.param(v, marks=pytest.mark.slow) for v in known()])
def test_graphs_of_every_variant_are_drawn_and_come_back_from_json(variant: str) -> None:
    drawn(lora=adapter(variant))


@pytest.mark.parametrize("variant", [v if v in OFTEN else pytest.param(v, marks=pytest.mark.slow) for v in known()])
def test_a_report_by_module_adds_up_to_what_the_adapter_trains(variant: str) -> None:
    report = gs.match_report(MODEL, adapter(variant))
    assert report[report.matched].parameters.sum() == gs.lora_parameters(MODEL, adapter(variant)) > 0


REQUESTS = {"batch": 2, "input_tokens": 16, "output_tokens": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "engine", "strategy"), CASES)
def test_estimates_of_every_variant_are_exported_and_explained(
    variant: str, engine: str, strategy: str, tmp_path: Path
) -> None:
    """Of variants that no engine fuses, a merge is exported and the adapter explained, or the other way round in turn:
    every variant and either strategy meet every export and every answer."""
    kind, lora = known()[variant], adapter(variant, strategy)
    asked: dict[str, Any] = {"lora": lora, "engine": engine}
    if engine in ("vllm", "sglang") and strategy == "dynamic" and not kind.fused:
        with pytest.raises(gs.ConfigError, match="is not allowed with engine"):
            gs.simulate(MODEL, "h100-sxm", **REQUESTS, **asked)
        return
    estimate = gs.simulate(MODEL, "h100-sxm", **REQUESTS, **asked)
    turn = (list(known()).index(variant) + (strategy == "merge")) % 2
    if turn or kind.fused or kind.unmerged:
        exported(estimate, tmp_path, **asked)
    if not turn or kind.fused or kind.unmerged:
        explained(estimate, **asked)


def exported(estimate: gs.Estimate, folder: Path, **asked: Any) -> None:
    drawn(**asked)
    for phase in ("prefill", "decode"):
        gs.to_chakra(estimate, folder / phase, phase=phase)
    gs.to_trace(estimate, folder / "trace.json")
    assert "<html" in gs.to_html(estimate)


def explained(estimate: gs.Estimate, lora: gs.LoraConfig, engine: str) -> None:
    causes = gs.explain(estimate).causes("ttft_s")
    assert sum(causes.values()) == pytest.approx(estimate.ttft_s, rel=1e-6)
    gs.footprint(MODEL, "h100-sxm", lora, engine=engine)
    gs.adapter_footprint(MODEL, lora)
    kind = known()[lora.variant]
    if not kind.unmerged:
        gs.lifecycle(MODEL, "h100-sxm", lora, engine=engine)
    if engine in ("reference", "peft") or kind.fused:
        compared = gs.compare_lora(MODEL, "h100-sxm", **REQUESTS, lora=lora, engine=engine)
        assert set(compared.index) >= {"base", "dynamic"}
    step = gs.compile_step(MODEL, "h100-sxm", lora=lora, engine=engine)
    assert float(step(generating=2.0, cache_rows=64.0)) > 0

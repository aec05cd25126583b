"""PEFT's methods on weights of few bits: what PEFT 0.21 merges into them, and what it does not run on them at all."""

from __future__ import annotations

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.variants import known
from graphsim.ops.overrides import OverriddenGemm, OverridingGemm
from tests.lora.variant_laws import each_variant

MERGED = {
    "lora", "rslora", "dora", "qa-lora", "bd-lora", "vera", "randlora", "road", "oft", "boft", "shira", "miss",
    "ln-tuning",
}  # fmt: skip
"""Those with a merge into bitsandbytes' weights in PEFT 0.21: `tuners/{lora,randlora,road}/bnb.py`, and the layers that
have a `quantization_backend`; norms, which LN tuning trains, are never in few bits."""

MODEL = "llama-3.2-1b"


def adapter(variant: str, strategy: str) -> gs.LoraConfig:
    targets = ["input_layernorm"] if known()[variant].copies else ["q_proj", "down_proj"]
    return gs.LoraConfig(variant=variant, rank=8, strategy=strategy, target_modules=targets, blocks=2)


@pytest.mark.parametrize("variant", each_variant(name for name, kind in known().items() if not kind.unmerged))
def test_a_merge_that_peft_does_not_have_is_refused_in_a_sentence(variant: str) -> None:
    lora = adapter(variant, "merge")
    if variant in MERGED:
        assert gs.build_graph(MODEL, "decode", lora=lora, precision="nf4")
        return
    with pytest.raises(gs.ConfigError) as error:
        gs.build_graph(MODEL, "decode", lora=lora, precision="nf4")
    said = str(error.value)
    assert said.startswith(f"lora.strategy = 'merge' is not allowed with variant '{variant}' on 'q_proj'")
    assert "nf4; allowed: dynamic" in said and "\n" not in said
    gs.build_graph(MODEL, "decode", lora=lora)


@pytest.mark.slow
def test_what_cannot_be_merged_into_few_bits_is_compared_without_a_merge() -> None:
    lora = adapter("ia3", "dynamic")
    narrow, wide = (
        gs.compare_lora(MODEL, "l4", lora=lora, precision=name, engine="reference") for name in ("nf4", "bf16")
    )
    assert set(wide.index) - set(narrow.index) == {"merge"}


def test_a_product_of_the_stored_weights_needs_whole_numbers() -> None:
    with pytest.raises(gs.ConfigError, match="'hra' is not allowed on 'q_proj' in nf4: PEFT 0.21 multiplies"):
        gs.build_graph(MODEL, "decode", lora=adapter("hra", "dynamic"), precision="nf4")


@pytest.mark.parametrize(("engine", "each"), [("reference", 2.0), ("peft", 4.0)])
def test_weights_made_again_are_read_in_the_format_that_they_are_made_in(engine: str, each: float) -> None:
    """HRA's in the vectors' format, which PEFT keeps in fp32; SHiRA's as a widened copy of W in 16 bits."""
    for variant, precision, expected in (("hra", "bf16", each), ("shira", "nf4", 2.0)):
        lora = adapter(variant, "dynamic")
        graph = gs.build_graph(MODEL, "decode", 1, 64, lora=lora, precision=precision, engine=engine)
        own = [op for _, op, _ in walk(graph) if isinstance(op, OverridingGemm)]
        assert own and all(op.work().weight_bytes == op.n * op.k * expected for op in own)
        idle = [op for _, op, _ in walk(graph) if isinstance(op, OverriddenGemm) and not op.parts]
        assert idle and all(op.work().memory_bytes == 0 for op in idle)

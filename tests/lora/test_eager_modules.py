"""The `peft` profile is Hugging Face eager as it runs: kernels counted from its sources, host time from its tables."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.lora.profile import EngineProfile, load_profile
from graphsim.ops import Gemm, Launch
from tests.paths import DATA, REFERENCE

PEFT = load_profile("peft")
A100 = "a100-sxm-80gb"


def sizes(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, words: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen2", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": words, "tie_word_embeddings": tied,
    }  # fmt: skip


SIZES = {
    "qwen1.5-0.5b": sizes(1024, 2816, 24, 16, 16, 151936, True),
    "qwen1.5-1.8b": sizes(2048, 5504, 24, 16, 16, 151936, False),
    "qwen1.5-4b": sizes(2560, 6912, 40, 20, 20, 151936, False),
    "qwen1.5-7b": sizes(4096, 11008, 32, 32, 32, 151936, False),
    "qwen1.5-14b": sizes(5120, 13696, 40, 40, 40, 152064, False),
    "qwen2.5-0.5b": sizes(896, 4864, 24, 14, 2, 151936, True),
    "qwen2.5-1.5b": sizes(1536, 8960, 28, 12, 2, 151936, True),
    "qwen2.5-3b": sizes(2048, 11008, 36, 16, 2, 151936, True),
    "qwen2.5-14b": sizes(5120, 13824, 48, 40, 8, 152064, False),
    "qwen2.5-32b": sizes(5120, 27648, 64, 40, 8, 152064, False),
    "sheared-llama-1.3b": sizes(2048, 5504, 24, 16, 16, 32000, False),
    "yi-6b": sizes(4096, 11008, 32, 32, 4, 64000, False),
}
"""From the models' config.json. Qwen-7B, of which ms-swift measured, has those of Qwen1.5-7B."""

NORM, LINEAR, ROPE, CACHE, ATTENTION, SUM, MLP = 8, 2, 7 + 2 * 5, 2, 7, 1, 2
"""Kernels of one call, by hand from transformers 4.38.2's modeling_llama.py: to fp32, pow, mean, add, rsqrt, mul, cast,
mul; product and sum of its parts; the table's positions to fp32, matmul, cat, cos, sin and two casts, then neg, cat,
mul, mul, add of q and of k; two cats; rows of the mask, q k, scale, mask, softmax, cast, product; residual; silu, mul.
"""


def layer_kernels(model: str, **asked: Any) -> dict[str, float]:
    """Kernels that the host starts for one layer of a decode step, by the launch's name."""
    graph = gs.build_graph(model, "decode", 1, 512, engine="peft", **asked)
    found = {name: op.times for name, op, times in walk(graph) if isinstance(op, Launch) and times > 1}
    return {name.rpartition(".")[0]: float(times) for name, times in found.items()}


def test_a_llama_layer_is_sixty_kernels_and_two_more_where_heads_share_keys() -> None:
    plain = 2 * NORM + 7 * LINEAR + ROPE + CACHE + ATTENTION + 2 * SUM + MLP
    assert 60 <= plain <= plain + 2 <= 70
    assert sum(layer_kernels("llama-2-7b").values()) == plain
    for model in ("llama-3.1-8b", "qwen2.5-7b"):
        assert sum(layer_kernels(model).values()) == plain + 2
    assert sum(layer_kernels("qwen3-8b").values()) == plain + 2 + 2 * NORM


def test_projections_that_lie_apart_run_apart_and_fused_ones_stay_fused() -> None:
    def products(model: str) -> list[str]:
        graph = gs.build_graph(model, "decode", engine="peft")
        return [op.role for _, op, times in walk(graph) if isinstance(op, Gemm) and times > 1]

    assert products("llama-3.1-8b") == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert products("phi-3-mini") == ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("variant", "adapters", "precision", "expected"),
    [
        ("lora", 1, "bf16", 6),  # Linear.forward: cast of x, A, B, scaling, sum, cast of the result
        ("lora", 1, "fp32", 4),  # nothing to cast
        # _mixed_batch_forward, of each: list of rows, taking, cast; A, B, scaling, cast; list, taking, sum, list, put
        ("lora", 3, "bf16", 12 * 3),
        # DoraLinearLayer.forward: cast of x, A, B; zeros and diagonal of eye, A, B, cast of W, scaling, sum, norm,
        # m / norm; g - 1, times y, times y_lora, scaling, their sum; the sum with y, cast of the result
        ("dora", 1, "bf16", 3 + 9 + 5 + 2),
    ],
)
def test_kernels_of_an_adapted_linear_are_those_of_pefts_source(
    variant: str, adapters: int, precision: str, expected: int
) -> None:
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj"], variant=variant, active_adapters=adapters)
    found = layer_kernels("llama-2-7b", lora=lora, precision=precision)
    of_adapter = [times for name, times in found.items() if "q_proj.lora_" in name or "q_proj.dora_" in name]
    assert sum(of_adapter) == expected
    assert sum(found.values()) - expected == sum(layer_kernels("llama-2-7b", precision=precision).values())


def test_doras_norm_moves_every_temporary_as_often_as_pefts_source_does() -> None:
    """fp32 factors on 16-bit weights, bytes by hand: W read and its copy written and read, B A written, scaled, read
    across rows by the sum, whose result is written and read; the identity written and read; A and B."""
    lora = gs.LoraConfig(rank=8, target_modules=["down_proj"], variant="dora")
    graph = gs.build_graph("llama-2-7b", "decode", lora=lora, engine="peft")
    (norm,) = (op for _, op, _ in walk(graph) if op.role == "down_proj.dora_norm")
    n, k, r = 4096, 11008, 8
    weight = (2 + 4 + 4) + 4 + (4 + 4) + (4 + (32 - 4) / 5) + (4 + 4)
    assert norm.work().memory_bytes == pytest.approx(n * k * weight + k * k * (4 + 4) + r * (n + k) * 4)


@pytest.mark.parametrize("lora", [{"rank": 0}, {"rank": 0, "variant": "dora"}, {"rank": 0, "variant": "vera"}])
def test_an_adapter_of_rank_0_is_no_kernel_and_no_call(lora: dict[str, Any]) -> None:
    adapter = gs.LoraConfig(target_modules="all-linear", **lora)
    asked: dict[str, Any] = {"engine": "peft", "parallelism": gs.Parallelism(tp=4)}
    base = gs.simulate("llama-3.1-8b", A100, 2, 256, 16, **{"engine": "reference", **asked})
    found = gs.simulate("llama-3.1-8b", A100, 2, 256, 16, lora=adapter, **{"engine": "reference", **asked})
    assert found.tpot_s == pytest.approx(base.tpot_s, rel=1e-9)


def test_an_embeddings_pair_is_kept_in_fp32_too_and_looked_up_for_each_adapter() -> None:
    """PEFT 0.21: `_cast_adapter_dtype` widens lora_embedding_A and _B; Embedding._mixed_batch_forward calls `_embed`
    for every adapter. Llama-3.1-8B: A of 16 x 128,256 and B of 4,096 x 16, four bytes each."""
    lora = gs.LoraConfig(rank=16, target_modules=["embed_tokens"], active_adapters=3)
    found = gs.simulate("llama-3.1-8b", "a100-sxm-80gb", 4, 64, 2, lora=lora, engine="peft")
    assert found.memory.adapters_bytes == 3 * 4 * 16 * (128_256 + 4_096)
    graph = gs.build_graph("llama-3.1-8b", "decode", 4, 64, lora=lora, engine="peft")
    assert [graph.nodes[f"embed_tokens.{part}"]["op"].launches for part in ("lora_a", "lora_b", "lora_add")] == [3] * 3


def test_every_step_writes_the_whole_cache_again() -> None:
    """DynamicCache's cat and repeat_kv: 4 bytes for each element of the cache, 4 for each of all heads' copies."""

    def moved(tokens: int, node: str) -> float:
        graph = gs.build_graph("llama-3.1-8b", "decode", 1, tokens, engine="peft")
        return next(float(op.work().memory_bytes) for name, op, _ in walk(graph) if name.endswith(node))

    assert moved(3000, "kv_cache.steps") - moved(1000, "kv_cache.steps") == 2000 * 4 * 2 * 1024
    assert moved(3000, "repeat_kv") - moved(1000, "repeat_kv") == 2000 * 4 * 2 * 4096


def test_ms_swift_measured_what_the_profile_says_of_base_lora_and_dora() -> None:
    path = REFERENCE / "measured_public.csv"
    if not path.is_file():
        pytest.skip("no reference measurements here")
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "engine=peft" in row["note"] or "ms-swift" in row["source"]]
    adapters = {
        "base": None,
        "LoRA": gs.LoraConfig(rank=8, target_modules="all-linear"),
        "DoRA": gs.LoraConfig(rank=8, target_modules="all-linear", variant="dora"),
    }
    measured = {row["note"].split()[0].rstrip(";"): float(row["measured"]) for row in rows}
    assert set(measured) == set(adapters)
    for name, lora in adapters.items():
        found = gs.simulate(SIZES["qwen1.5-7b"], A100, 1, 512, 250, lora=lora, engine="peft").tpot_s * 1e3
        assert found == pytest.approx(measured[name], rel=0.15), name


def ratios(call_s: float) -> dict[str, list[float]]:
    """Our time of a token over the measured one, by source, with the kernels of the source's version."""
    found: dict[str, list[float]] = {}
    with (DATA / "transformers_eager.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            tokens = int(row["input_tokens"]), int(row["output_tokens"])
            model = SIZES.get(row["model"], row["model"])
            estimate = gs.simulate(model, row["hardware"], 1, *tokens, engine=_version(row, call_s))
            found.setdefault(row["source"], []).append(float(estimate.tpot_s) * float(row["tokens_per_s"]))
    return found


def _version(row: dict[str, str], call_s: float) -> EngineProfile:
    """The profile with the rotary embedding and the attention that the source ran: in one kernel, no scores written."""
    fused = float(row["attention_kernels"]) < 3
    changed = {
        "Rope": {"kernels": float(row["rope_kernels"])},
        "Attention": {"kernels": float(row["attention_kernels"])},
    }
    if fused:
        changed["Attention"]["bytes"] = 0.0
    calls = tuple(
        replace(call, kernels=changed[call.kind].get("kernels", 1.0), bytes=changed[call.kind].get("bytes", call.bytes))
        if call.kind in changed
        else call
        for call in PEFT.module_calls
    )
    return replace(PEFT, call_s=call_s, module_calls=calls)


def _median(found: dict[str, list[float]]) -> float:
    """Every source counts once."""
    return float(np.median([np.median(each) for each in found.values()]))


@pytest.mark.slow
def test_the_host_time_of_a_call_is_that_of_public_tables_and_holds_for_a_source_left_out() -> None:
    """Fit: the median over sources of each one's median is 1. Left out in turn, sources are met within 13 %."""
    grid = np.array([6.0, 7.0, 8.0, 9.0, 10.0, 11.0]) * 1e-6
    at = [ratios(call_s) for call_s in grid]

    def fitted(sources: list[str]) -> float:
        return float(np.interp(1.0, [_median({name: one[name] for name in sources}) for one in at], grid))

    sources = list(at[0])
    assert PEFT.call_s == pytest.approx(fitted(sources), rel=0.02)
    for name in sources:
        others = [other for other in sources if other != name]
        left_out = np.interp(fitted(others), grid, [np.median(one[name]) for one in at])
        assert left_out == pytest.approx(1.0, abs=0.13), name
    errors = np.abs(np.concatenate([np.array(each) for each in ratios(PEFT.call_s).values()]) - 1.0)
    assert np.median(errors) < 0.07 and errors.max() < 0.23

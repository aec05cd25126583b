"""What an engine or a model cannot run is refused as the engine refuses it, alike by every verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.arguments import inference_of
from graphsim.deployment.refusals import require_runs

MODEL, TOKENS = "llama-3.2-1b", 131072
"""32 heads and 8 for keys and values, of 64 each; 131,072 positions."""

FUSED = ("vllm", "vllm-0.8", "vllm-0.5", "sglang", "slora")
NVIDIA = ("h100-sxm", "l4", "a100-sxm-80gb")

ORACLE: Mapping[str, Mapping[str, Any]] = {
    "vllm": {
        "offers": (1, 8, 16, 32, 64, 128, 256, 320, 512), "bounded": True, "slots": 0, "runs_on": (*NVIDIA, "mi300x"),
        "saved": ("classifier", "score"), "bias": False, "padded": True, "positions": True, "experts": True,
    },
    "vllm-0.8": {
        "offers": (8, 16, 32, 64, 128, 256, 320, 512), "bounded": True, "slots": 0, "runs_on": (*NVIDIA, "mi300x"),
        "saved": (), "bias": False, "padded": True, "positions": True, "experts": True,
    },
    "vllm-0.5": {
        "offers": (8, 16, 32, 64), "bounded": True, "slots": 0, "runs_on": NVIDIA, "saved": (), "bias": False,
        "padded": True, "positions": True, "experts": True,
    },
    "sglang": {
        "offers": (), "bounded": True, "slots": 1, "runs_on": (*NVIDIA, "mi300x"), "saved": None, "bias": True,
        "padded": True, "positions": True, "experts": False,
    },
    "slora": {
        "offers": (), "bounded": False, "slots": None, "runs_on": NVIDIA, "saved": None, "bias": True, "padded": False,
        "positions": False, "experts": False, "scheme": True,
    },
    "peft": {
        "offers": (), "bounded": False, "slots": None, "runs_on": None, "saved": None, "bias": True, "padded": False,
        "positions": False, "experts": False,
    },
}  # fmt: skip
"""Written down from the engines' sources (see their profiles): the values of --max-lora-rank, whether it bounds ranks,
slots taken by base-only requests (None: no slots), devices whose kernels there are, modules that may be saved in full
(None: any), whether a bias may be, whether buffers are padded, and whether positions bound rotary models."""


def broken(engine: str, case: Mapping[str, Any]) -> set[str]:
    """The rules that a case breaks, by the engine's table."""
    rules, lora, found = ORACLE[engine], case["lora"], set[str]()
    if case["tokens"] > TOKENS and rules["positions"]:
        found.add("positions")
    if case["precision"] == "fp8_block" and case["tp"] in (8, 16):
        found.add("blocks")  # keys: 8 heads of 64 over 8 devices, and no further, are 64 wide; a block is 128
    if lora["strategy"] == "merge":
        return found | ({"merged"} if lora["active_adapters"] > 1 and lora["rank"] else set())
    rank, reserved, active = lora["rank"], lora["max_lora_rank"], lora["active_adapters"]
    if lora["modules_to_save"] and rules["saved"] is not None and set(lora["modules_to_save"]) - set(rules["saved"]):
        found.add("modules_to_save")
    sharded = lora["fully_sharded_loras"] or rules.get("scheme", False)
    buffer = max(rank, reserved) if rules["padded"] else rank
    if rules["padded"] and rules["offers"] and buffer:
        buffer = min((size for size in rules["offers"] if size >= buffer), default=buffer)
    if sharded and buffer % case["tp"]:
        found.add("fully_sharded")
    if not rank:
        return found
    if reserved and rules["bounded"] and rank > reserved:
        found.add("rank")
    if rules["offers"] and (reserved not in (0, *rules["offers"]) or max(rank, reserved) > max(rules["offers"])):
        found.add("max_lora_rank")
    if rules["slots"] is not None and lora["max_loras"]:
        base = rules["slots"] if lora["adapter_share"] < 1 else 0
        found |= {"slots"} if active + base > lora["max_loras"] else set()
    found |= {"variant"} if engine in FUSED and lora["variant"] not in ("lora", "rslora") else set()
    found |= {"bias"} if lora["bias"] and not rules["bias"] else set()
    found |= {"kernels"} if rules["runs_on"] and case["hardware"] not in rules["runs_on"] else set()
    return found


def drawn(draw: np.random.Generator) -> dict[str, Any]:
    """A case at random; about half of them break nothing."""

    def one(*choices: Any) -> Any:
        return choices[int(draw.integers(len(choices)))]

    return {
        "hardware": one(*NVIDIA, "h100-sxm", "mi300x", "tpu-v5e", "xeon-6980p", "gaudi-3"),
        "tp": one(1, 1, 2, 4, 8, 16), "precision": one(None, None, None, "fp8", "fp8_block"),
        "batch": one(1, 4, 16, 16), "tokens": one(600, 600, 600, TOKENS, TOKENS + 1),
        "lora": {
            "rank": one(0, 6, 8, 16, 24, 64, 300, 600), "max_lora_rank": one(0, 0, 0, 8, 24, 64, 128, 512),
            "max_loras": one(0, 0, 4, 16), "active_adapters": one(0, 1, 1, 2, 4, 16), "adapter_share": one(1.0, 0.5),
            "strategy": one("dynamic", "dynamic", "dynamic", "merge"), "variant": one("lora", "lora", "lora", "rslora"),
            "bias": one(False, False, False, True), "fully_sharded_loras": one(False, False, True),
            "modules_to_save": one((), (), ("lm_head",), ("score",)),
        },
    }  # fmt: skip


def asked(engine: str, case: Mapping[str, Any]) -> None:
    lora = gs.LoraConfig(**case["lora"], target_modules=["q_proj", "v_proj"])
    inference_of(
        MODEL, case["hardware"], case["batch"], case["tokens"] - 100, 100, gs.Parallelism(tp=case["tp"]), lora,
        case["precision"], engine=engine,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ORACLE)
def test_an_engine_refuses_what_its_own_source_refuses_and_nothing_else(engine: str) -> None:
    draw, outcomes = np.random.default_rng(17), set[str]()
    for _ in range(250):
        case = drawn(draw)
        if case["lora"]["variant"] == "lora" and case["lora"]["strategy"] == "dynamic" and draw.random() < 0.2:
            case["lora"]["variant"] = str(draw.choice(["dora", "vera", "alora", "qa-lora"]))
        expected = broken(engine, case)
        try:
            asked(engine, case)
            said = ""
        except gs.InfeasibleError as error:
            said = str(error)
        outcomes |= expected or {"runs"}
        named = {rule for rule in expected if f"({rule})" in said}
        named |= {"merged"} if "merged weights" in said else set()
        named |= {"fully_sharded"} if "is not divisible by" in said and "tp_scheme" in said else set()
        assert bool(said) == bool(expected) and named <= expected and bool(named) == bool(said), (case, expected, said)
    assert {"runs", "merged", "blocks", "fully_sharded"} <= outcomes


QUESTIONS: dict[str, Callable[..., Any]] = {
    "simulate": gs.simulate, "build_graph": gs.build_graph, "compile_step": gs.compile_step, "footprint": gs.footprint,
    "kv_tokens_left": gs.kv_tokens_left, "lifecycle": gs.lifecycle, "compare_lora": gs.compare_lora,
    "adapters_that_fit": lambda deployment: gs.adapters_that_fit(deployment, kv_tokens=100),
    "adapter_footprint": gs.adapter_footprint, "break_even": gs.break_even, "lora_advice": gs.lora_advice,
    "break_even_curve": gs.break_even_curve, "sensitivity": gs.sensitivity, "lora_parameters": gs.lora_parameters,
}  # fmt: skip
"""Every verb that takes a deployment."""

FP8 = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 2, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
}  # fmt: skip
"""The shape of Qwen3-30B-A3B-FP8 (vLLM issue 25292), two layers of it."""


def refused(**changes: Any) -> gs.Deployment:
    given = {"model": MODEL, "hardware": "h100-sxm", "engine": "vllm", **changes}
    return gs.Deployment(**{"engine": "reference", **given})


REFUSED: dict[str, tuple[gs.Deployment, str]] = {
    "rank above max_lora_rank (vLLM issue 2847)": (
        refused(lora=gs.LoraConfig(rank=64, max_lora_rank=16)), "LoRA rank 64 is greater than max_lora_rank 16"
    ),
    "more adapters than slots": (
        refused(lora=gs.LoraConfig(active_adapters=300, max_loras=8)),
        r"Number of requested LoRAs \(300\) is greater than the number of GPU LoRA slots \(8\)",
    ),
    "modules_to_save (vLLM issue 9280)": (
        refused(lora=gs.LoraConfig(modules_to_save=["lm_head"])), "vLLM only supports modules_to_save being None"
    ),
    "a rank that is not offered": (
        refused(lora=gs.LoraConfig(rank=8, max_lora_rank=24)), r"max_lora_rank \(24\) must be one of \(1, 8, 16, 32"
    ),
    "a quantised shard (vLLM issue 25292)": (
        refused(model=FP8, parallelism=gs.Parallelism(tp=4)),
        r"output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n = 128",
    ),
    "experts dealt out and factors sharded": (
        refused(
            model="mixtral-8x7b", parallelism=gs.Parallelism(tp=2, ep=2), lora=gs.LoraConfig(fully_sharded_loras=True)
        ),
        "does not support enable_expert_parallel=True together with fully_sharded_loras=True",
    ),
    "adapters without kernels": (refused(hardware="tpu-v5e", lora=gs.LoraConfig()), "kernels do not run on tpu"),
    "several merged adapters, also under reference": (
        refused(engine="reference", lora=gs.LoraConfig(strategy="merge", active_adapters=2)),
        "merged weights serve one adapter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_every_verb_gives_the_same_refusal(name: str) -> None:
    deployment, words = REFUSED[name]
    said = set()
    for verb, ask in QUESTIONS.items():
        with pytest.raises(gs.InfeasibleError, match=words) as error:
            ask(deployment)
        said.add(str(error.value))
        assert isinstance(error.value, gs.ConfigError), verb
    assert len(said) == 1, said
    row = gs.sweep([deployment], batch=300).iloc[0]
    assert row["reason"] in said and np.isnan(row["latency_s"]) and not row["fits"]
    with pytest.raises(gs.InfeasibleError, match=words):
        gs.best([deployment], batch=300)


@pytest.mark.slow
def test_a_sweep_refuses_row_by_row_what_simulate_refuses_one_by_one() -> None:
    choices: dict[str, Any] = {
        "rank": [8, 64],
        "max_lora_rank": [0, 16, 24],
        "active_adapters": [1, 6],
        "max_loras": [0, 4],
        "batch": [1, 8],
    }
    frame = gs.sweep("gpt-2", "l4", engine=["vllm", "reference"], strategy=["dynamic", "merge"], **choices)
    for row in frame.sample(40, random_state=0).to_dict("records"):
        fields = ("strategy", "rank", "max_lora_rank", "active_adapters", "max_loras")
        lora = gs.LoraConfig(**{name: row[name] for name in fields})
        try:
            alone = gs.simulate("gpt-2", "l4", row["batch"], lora=lora, engine=row["engine"])
            assert row["latency_s"] == pytest.approx(alone.latency_s, rel=1e-4)
            assert row["reason"] == next((note for note in alone.notes if "breaks a rule" in note), "")
        except gs.InfeasibleError as error:
            assert row["reason"] == str(error) and np.isnan(row["latency_s"])
    assert set(frame["engine"][frame["reason"].astype(str).str.contains("breaks a rule")]) == {"reference"}


def test_best_ranks_nothing_that_serving_engines_refuse_also_under_reference() -> None:
    found = gs.best(
        "llama-2-7b", "h100-sxm", input_tokens=[3000, 5000], output_tokens=100, engine=["reference", "vllm"]
    )
    assert set(found["input_tokens"]) == {3000}
    with pytest.raises(gs.InfeasibleError, match="none of 1 scenarios can be run.*5100 tokens are more than the 4096"):
        gs.best("llama-2-7b", "h100-sxm", input_tokens=5000, output_tokens=100, engine="reference")


def test_reference_simulates_what_peft_can_train_and_notes_what_engines_refuse() -> None:
    file = {
        "peft_type": "LORA",
        "r": 600,
        "target_modules": ["q_proj"],
        "modules_to_save": ["lm_head"],
        "use_dora": True,
    }
    trained = gs.simulate(MODEL, "h100-sxm", lora=gs.LoraConfig.from_peft(file), engine="reference")
    assert not any("breaks a rule" in note for note in trained.notes) and trained.tpot_s > 0
    noted = gs.simulate(
        MODEL,
        "h100-sxm",
        2,
        lora=gs.LoraConfig(rank=64, max_lora_rank=16, active_adapters=5, max_loras=4),
        engine="reference",
    )
    for rule in ("(rank)", "(slots)", "5 active adapters for 2 sequences"):
        assert sum(rule in note for note in noted.notes) == 1
    assert not gs.simulate(MODEL, "h100-sxm", 2, lora=gs.LoraConfig(rank=64), engine="reference").notes


@pytest.mark.parametrize(
    ("engine", "tokens", "words"),
    [
        (
            "vllm",
            1025,
            r"max_model_len \(1025\) is greater than the derived max_model_len \(max_position_embeddings=1024",
        ),
        ("sglang", 1025, r"context_length \(1025\) is greater than the derived context_length \(1024\)"),
        ("peft", 1026, "1025 tokens are more than the 1024 positions"),
        ("slora", 1026, "1025 tokens are more than the 1024 positions"),
    ],
)
def test_learned_positions_bound_every_engine_and_the_last_token_takes_none(
    engine: str, tokens: int, words: str
) -> None:
    """A server asks for room for all tokens; a table of positions is asked for those that go through the model."""
    inference_of("gpt-2", "h100-sxm", 1, tokens - 11, 10, engine=engine)
    with pytest.raises(gs.InfeasibleError, match=words):
        inference_of("gpt-2", "h100-sxm", 1, tokens - 10, 10, engine=engine)


def test_a_rotary_model_is_bounded_by_servers_only() -> None:
    for engine in ("vllm", "vllm-0.5", "sglang"):
        with pytest.raises(gs.InfeasibleError, match="derived"):
            inference_of("llama-2-7b", "h100-sxm", 1, 100_000, 10, engine=engine)
    inference_of("llama-2-7b", "h100-sxm", 1, 100_000, 10, engine="peft")
    assert "(positions)" in gs.simulate("llama-2-7b", "h100-sxm", 1, 100_000, 10, engine="reference").notes[0]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_graph_is_of_a_step_that_the_engine_would_run(phase: str) -> None:
    """A prompt, or a cache, of all positions but one leaves room for one token."""
    assert gs.build_graph("llama-2-7b", phase, 1, 4095, engine="vllm")
    assert gs.build_graph("gpt-2", phase, 1, 1024, engine="peft")
    with pytest.raises(gs.InfeasibleError, match=r"max_model_len \(4097\) is greater"):
        gs.build_graph("llama-2-7b", phase, 1, 4096, engine="vllm")
    with pytest.raises(gs.InfeasibleError, match="1025 tokens are more than the 1024 positions"):
        gs.build_graph("gpt-2", phase, 1, 1025, engine="peft")
    assert gs.build_graph("llama-2-7b", phase, 1, 100_000)


@pytest.mark.parametrize(
    ("model", "precision", "degrees", "words"),
    [
        # 13,824 over 5; heads come in 40
        ("llama-2-13b", None, {"tp": 5}, "13824 is not divisible by 5"),
        # q of 32 heads of 128 over 8 is 512; k of 8 is 128; 14,336 over 8 is 1,792 = 14 blocks
        ("llama-3.1-8b", "fp8_block", {"tp": 8}, ""),
        # at 16, q is 256, k still 128, and 896 = 7 blocks
        ("llama-3.1-8b", "fp8_block", {"tp": 16}, ""),
        # at 32, 448 = 3.5 blocks
        ("llama-3.1-8b", "fp8_block", {"tp": 32}, "448 is not divisible by weight quantization block_n = 128"),
        # 18,944 over 4 is 4,736 = 37 groups; over 2 it is 74
        ("qwen2.5-7b", "int4", {"tp": 4}, ""),
        # 11,008 over 4 is 2,752 = 21.5 groups of 128
        ("llama-2-7b", "int4", {"tp": 4}, "input size is not aligned with the quantized weight shape"),
        # 768 over 4 is 192: no multiple of 128, but of 32, to which groups of experts are halved
        ("qwen3-30b-a3b", "int4", {"tp": 4}, ""),
        ("qwen3-30b-a3b", "fp8_block", {"tp": 4, "ep": 4}, ""),
        ("qwen3-30b-a3b", "fp8_block", {"tp": 4, "ep": 2}, ""),
        ("qwen3-30b-a3b", "fp8_block", {"tp": 8, "ep": 2}, "192 is not divisible by"),
        ("minimax-m2.5", "fp8_block", {"tp": 8}, "192 is not divisible by weight quantization block_n = 128"),
        # engines pad mxfp4
        ("gpt-oss-20b", "mxfp4", {"tp": 8}, ""),
    ],
)
def test_shards_hold_whole_blocks(model: str, precision: str | None, degrees: dict[str, int], words: str) -> None:
    deployment = gs.Deployment(model, parallelism=gs.Parallelism(**degrees), precision=precision, engine="vllm")
    if not words:
        return require_runs(deployment)
    with pytest.raises(gs.InfeasibleError, match=words):
        require_runs(deployment)
    return require_runs(replace(deployment, engine="reference"))


def test_devices_that_an_engine_does_not_know_are_refused_and_fallbacks_are_not() -> None:
    turing, volta = "t4", "v100-sxm2-32gb"
    for device in (turing, volta):
        with pytest.raises(gs.InfeasibleError, match="Bfloat16 is only supported on GPUs with compute capability"):
            require_runs(gs.Deployment(MODEL, device, engine="vllm-0.5"))
        require_runs(gs.Deployment(MODEL, device, engine="vllm-0.5", precision="fp16"))
        require_runs(gs.Deployment(MODEL, device, engine="vllm", lora=gs.LoraConfig()))  # falls back to fp16
        require_runs(gs.Deployment(MODEL, device, engine="reference", lora=gs.LoraConfig()))
    require_runs(gs.Deployment(MODEL, turing, engine="sglang"))
    with pytest.raises(gs.InfeasibleError, match="SGLang only supports sm75 and above"):
        require_runs(gs.Deployment(MODEL, volta, engine="sglang"))
    with pytest.raises(gs.InfeasibleError, match="punica LoRA kernels require compute capability >= 8.0"):
        require_runs(gs.Deployment(MODEL, "mi300x", engine="vllm-0.5", lora=gs.LoraConfig()))
    require_runs(gs.Deployment(MODEL, "mi300x", engine="vllm-0.5"))
    require_runs(gs.Deployment(MODEL, "a100-sxm-80gb", precision="fp8", engine="vllm"))


def test_adapters_on_experts_are_refused_by_engines_that_have_no_layer_for_them() -> None:
    """vLLM has one since 0.11.1; before, whatever module it did not know was refused at load."""
    for engine in ("vllm-0.8", "vllm-0.5"):
        for targets in (["ffn"], ["attn", "ffn"], ["up+gate"]):
            with pytest.raises(gs.InfeasibleError, match=r"expected target modules in .* \['model.layers.0.*experts"):
                require_runs(refused(model="mixtral-8x7b", engine=engine, lora=gs.LoraConfig(target_modules=targets)))
        for targets in (["attn"], ["q_proj", "v_proj"]):
            require_runs(refused(model="mixtral-8x7b", engine=engine, lora=gs.LoraConfig(target_modules=targets)))
        require_runs(refused(model="mixtral-8x7b", engine=engine, lora=gs.LoraConfig(rank=0)))
        require_runs(refused(model="mixtral-8x7b", engine=engine, lora=gs.LoraConfig(strategy="merge")))
    for engine in ("vllm", "sglang", "peft", "reference"):
        require_runs(refused(model="mixtral-8x7b", engine=engine, lora=gs.LoraConfig(target_modules=["ffn"])))


def test_what_peft_trains_beside_its_factors_is_refused_in_the_engines_words() -> None:
    base = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    for more, words in (
        ({"bias": "all"}, "Adapter bias is not supported"),
        ({"lora_bias": True}, "lora_B.bias is unsupported LoRA weight"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "slots hold nothing of layer_replication"),
        ({"trainable_token_indices": [1, 2]}, "slots hold nothing of trainable_token_indices"),
        ({"use_dora": True}, "vLLM does not yet support DoRA"),
    ):
        lora = gs.LoraConfig.from_peft(base | more)
        with pytest.raises(gs.InfeasibleError, match=words):
            require_runs(refused(lora=lora))
        require_runs(refused(lora=lora, engine="peft"))
    require_runs(refused(lora=gs.LoraConfig.from_peft(base | {"modules_to_save": ["score"]})))


def test_a_rank_of_zero_is_the_base_model_and_never_refused() -> None:
    for engine in ORACLE:
        lora = gs.LoraConfig(rank=0, max_lora_rank=24, active_adapters=16, max_loras=4, fully_sharded_loras=False)
        inference_of(MODEL, "tpu-v5e", 1, 100, 10, lora=lora, engine=engine)
        inference_of(MODEL, "h100-sxm", 1, 100, 10, lora=replace(lora, strategy="merge"), engine=engine)
    merged = {"rank": [0, 8], "strategy": ["merge"], "active_adapters": [2]}
    reasons = gs.sweep("gpt-2", "l4", engine=["vllm", "reference"], batch=[1], **merged).set_index("rank").reason
    assert set(reasons.loc[0.0]) == {""} and all("merged weights serve one" in reason for reason in reasons.loc[8.0])


def test_several_adapters_are_compared_without_a_merge() -> None:
    lora = gs.LoraConfig(active_adapters=4)
    assert list(gs.compare_lora("gpt-2", "l4", 8, lora=lora, engine="reference").index) == ["base", "dynamic"]
    assert gs.break_even("gpt-2", "l4", 8, lora=lora, engine="reference").tokens == np.inf
    with pytest.raises(gs.ConfigError, match="cannot be merged here: merged weights serve one adapter"):
        gs.break_even_curve("gpt-2", "l4", batch=8, lora=lora)
    assert "a switch would cost" in gs.lora_advice("gpt-2", "l4", 8, lora=lora, engine="reference").reason
    assert float(gs.lifecycle("gpt-2", "l4", lora, engine="reference").merge_s) > 0, (
        "one of them may be merged at a time"
    )


@pytest.mark.parametrize("says", ["x {rnk} {", "{rank.__class__} of {}", "{rank!r:>{max_lora_rank}}"])
def test_a_profiles_own_words_may_hold_any_braces(says: str) -> None:
    own = {"base": "vllm", "limits": {"rank": {"says": says, "source": "mine"}}}
    with pytest.raises(gs.InfeasibleError) as refused:
        gs.simulate("gpt-2", "h100-sxm", lora=gs.LoraConfig(rank=64, max_lora_rank=16), engine=own)
    assert "(rank): " in str(refused.value) and "__class__" not in str(refused.value).replace(says, "")


def test_an_indexers_heads_do_not_bound_how_attention_is_cut() -> None:
    """MiniMax-M3's four are whole on every device, as engines keep them."""
    assert gs.Deployment("minimax-m3", "h100-sxm", parallelism=gs.Parallelism(tp=8)).parallelism.tp == 8

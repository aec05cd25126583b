"""Full depth, run in full and with one layer of each kind: every layer does what the layer run in its place does."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch._dispatch.python import enable_python_dispatcher  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext  # noqa: E402

from graphsim.models.capture.kinds import Stack, kinds  # noqa: E402
from graphsim.models.capture.skipping import SkippedLayers, run_one_of_each  # noqa: E402
from tests.models.capture.dispatched import Rows, rows_of  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
}


def on_meta(config: Any) -> nn.Module:
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(config).eval().to(torch.bfloat16)


def both_steps(model: nn.Module, symbolic: bool = False) -> tuple[Rows, Rows]:
    """A prompt and the decode step after it, with the model's own cache."""
    mode = FakeTensorMode(shape_env=ShapeEnv() if symbolic else None, allow_non_fake_inputs=True)
    context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * 2) if symbolic else None
    ids = mode.from_tensor(torch.zeros(3, 53, dtype=torch.long, device="meta"), symbolic_context=context)
    encodes = model.config.is_encoder_decoder
    with torch.no_grad(), enable_python_dispatcher(), mode:
        with rows_of(model) as prompt:
            given = {"input_ids": ids, "decoder_input_ids": ids[:, :17]} if encodes else {"input_ids": ids}
            first = model(**given, use_cache=True)
        cache = {k: first[k] for k in ("past_key_values", "cache_params", "state") if first.get(k) is not None}
        if encodes:
            states = transformers.modeling_outputs.BaseModelOutput(last_hidden_state=first.encoder_last_hidden_state)
            more = {"decoder_input_ids": ids[:, :1], "encoder_outputs": states}
        else:
            more = {"input_ids": ids[:, :1]}
        with rows_of(model) as decode:
            model(**more, **cache, use_cache=True)
    return prompt, decode


def copies(stacks: list[Stack]) -> dict[str, int]:
    """How many layers a layer that ran stands for."""
    return {name: stack.keys.count(stack.keys[i]) for stack in stacks for i, name in enumerate(stack.names)}


def scaled(flops: Counter[str], stacks: list[Stack]) -> int:
    """Flops with those of each layer times the layers it stands for."""
    times, total = copies(stacks), 0
    for module, count in flops.items():
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            count *= times.get(".".join(parts[:end]), 1)
        total += count
    return total


def check(config: Any, symbolic: bool = False) -> dict[str, tuple[int, ...]]:
    """Compare a full run with one of each; the kinds of the stacks outside any layer."""
    model = on_meta(config)
    whole = both_steps(model, symbolic)
    once, passed = run_one_of_each(model, lambda passed: (both_steps(model, symbolic), passed))
    stacks, inner = passed.stacks, kinds(model)
    outer = [s for s in stacks if not any(s.path.startswith(name + ".") for t in stacks for name in t.names)]
    for all_rows, rows in zip(whole, once, strict=True):
        for stack in outer:
            for i, name in enumerate(stack.names):
                ran = stack.names[stack.keys.index(stack.keys[i])]
                if not any(s.path.startswith(ran + ".") for s in inner):
                    assert all_rows.of(name) == rows.of(ran), (name, ran)
        if not symbolic:
            assert scaled(rows.flops, stacks) == sum(all_rows.flops.values()) > 0
        names = {name for stack in outer for name in stack.names}
        outside = [[r for r in one.rows if not inside(r[0], names)] for one in (all_rows, rows)]
        assert outside[0] == outside[1]
        assert len(rows.rows) < len(all_rows.rows)
    return {stack.path: stack.keys for stack in outer}


def inside(module: str, layers: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:end]) in layers for end in range(1, len(parts) + 1))


def config_of(model_type: str, **fields: Any) -> Any:
    return transformers.CONFIG_MAPPING[model_type](**{**SMALL, **fields})


MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "llama": ({"num_hidden_layers": 5}, {"model.layers": (0, 0, 0, 0, 0)}),
    "gpt2": ({"n_layer": 4, "n_embd": 64, "n_head": 4}, {"transformer.h": (0, 0, 0, 0)}),
    "mixtral": ({"num_hidden_layers": 4, "num_local_experts": 4}, {"model.layers": (0, 0, 0, 0)}),
    "gemma2": ({"num_hidden_layers": 5, "head_dim": 16, "sliding_window": 7}, {"model.layers": (0, 1, 0, 1, 0)}),
    "gemma3_text": (
        {"num_hidden_layers": 8, "head_dim": 16, "sliding_window": 7},
        {"model.layers": (0, 0, 0, 0, 0, 1, 0, 0)},
    ),
    "deepseek_v3": (
        {
            "num_hidden_layers": 5,
            "first_k_dense_replace": 2,
            "n_routed_experts": 8,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "num_key_value_heads": 4,
        },
        {"model.layers": (0, 0, 1, 1, 1)},
    ),
    "smollm3": ({"num_hidden_layers": 8, "pad_token_id": 0}, {"model.layers": (0, 0, 0, 1, 0, 0, 0, 1)}),
    "t5": (
        {"num_layers": 4, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4},
        {"encoder.block": (0, 1, 1, 1), "decoder.block": (0, 1, 1, 1)},
    ),
    "zamba2": (
        {
            "num_hidden_layers": 7,
            "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "hybrid", "mamba", "hybrid"],
            "num_mem_blocks": 1,
            "adapter_rank": 4,
            "num_key_value_heads": 4,
            "mamba_d_state": 16,
            "n_mamba_heads": 4,
            "chunk_size": 16,
        },
        {"model.layers": (0, 0, 1, 0, 1, 0, 1)},
    ),
    "granitemoehybrid": (
        {
            "num_hidden_layers": 6,
            "layer_types": ["mamba", "mamba", "attention"] * 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 32,
            **MAMBA,
        },
        {"model.layers": (0, 0, 1, 0, 0, 1)},
    ),
    "jamba": (
        {
            "num_hidden_layers": 8,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
        {"model.layers": (0, 1, 2, 1, 0, 1, 2, 1)},
    ),
    "lfm2": (
        {"num_hidden_layers": 6, "layer_types": ["conv", "conv", "full_attention"] * 2},
        {"model.layers": (0, 0, 1, 0, 0, 1)},
    ),
    "recurrent_gemma": (
        {"num_hidden_layers": 6, "head_dim": 16, "lru_width": 64, "attention_window_size": 7},
        {"model.layers": (0, 0, 1, 0, 0, 1)},
    ),
    "qwen3_next": (
        {
            "num_hidden_layers": 8,
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        {"model.layers": (0, 0, 0, 1, 0, 0, 0, 1)},
    ),
    "falcon_h1": ({"num_hidden_layers": 4, **MAMBA, "mamba_d_ssm": 128}, {"model.layers": (0, 0, 0, 0)}),
    "mamba2": (
        {"num_hidden_layers": 3, "num_heads": 4, "head_dim": 32, "state_size": 16, "n_groups": 1, "chunk_size": 16},
        {"backbone.layers": (0, 1, 1)},  # the residual becomes float32 in the first
    ),
    "gemma3n_text": (
        {
            "num_hidden_layers": 10,
            "head_dim": 16,
            "sliding_window": 7,
            "num_kv_shared_layers": 5,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 101,
            "laurel_rank": 4,
            "activation_sparsity_pattern": None,
            "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
        },
        # the last layer of each type before the shared ones keeps its keys and values for them
        {"model.layers": (0, 0, 0, 1, 2, 3, 3, 3, 3, 4)},
    ),
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_families(model_type: str) -> None:
    fields, expected = FAMILIES[model_type]
    assert check(config_of(model_type, **fields)) == expected


def test_symbolic_sizes() -> None:
    assert check(config_of("llama", num_hidden_layers=3), symbolic=True) == {"model.layers": (0, 0, 0)}


def test_windows_of_a_vision_tower() -> None:
    """Blocks that see the whole image are told apart by the bounds that they are called with."""
    config = transformers.CONFIG_MAPPING["qwen2_5_vl"]().vision_config
    small = {"depth": 6, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
    for name, value in {**small, "fullatt_block_indexes": [2, 5], "window_size": 56}.items():
        setattr(config, name, value)
    tower = transformers.AutoModel.from_config(config).eval()
    patches, grid = torch.zeros(64, 3 * 2 * 14 * 14), torch.tensor([[1, 8, 8]])

    def run(passed: SkippedLayers) -> tuple[Rows, list[Stack]]:
        with torch.no_grad(), rows_of(tower) as rows:
            tower(patches, grid_thw=grid)
        return rows, passed.stacks

    with torch.no_grad(), rows_of(tower) as whole:
        tower(patches, grid_thw=grid)
    once, (stack,) = run_one_of_each(tower, run)
    assert stack.keys == (0, 0, 1, 0, 0, 1)
    assert all(
        whole.of(name) == once.of(stack.names[(0, 2)[key]]) for name, key in zip(stack.names, stack.keys, strict=True)
    )
    assert scaled(once.flops, [stack]) == sum(whole.flops.values())

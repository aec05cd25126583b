"""Quantised checkpoints in every layout are explained to the last byte, and a weight stored otherwise is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from tests.models.checkpoint.folders import Header, saved, write_folder
from tests.models.checkpoint.stores import STORES, fp8_blocks, gptq, nf4, quantise

DENSE = {
    "model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 3, "vocab_size": 512,
    "num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": False, "max_position_embeddings": 512,
}  # fmt: skip
MIXTURE = DENSE | {
    "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 512,
    "head_dim": 128, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
}  # fmt: skip


def dense() -> Header:
    """What transformers 5.24 saves for DENSE (shapes of Qwen2DecoderLayer)."""
    h, ffn, kv = 1024, 2048, 256
    linears = {"self_attn.q_proj": (h, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h)}
    linears |= {
        "self_attn.o_proj": (h, h),
        "mlp.gate_proj": (ffn, h),
        "mlp.up_proj": (ffn, h),
        "mlp.down_proj": (h, ffn),
    }
    out: Header = {"model.embed_tokens.weight": ("BF16", (512, h))}
    for i in range(3):
        out |= {f"model.layers.{i}.{name}.weight": ("BF16", shape) for name, shape in linears.items()}
        out |= {
            f"model.layers.{i}.self_attn.{p}_proj.bias": ("BF16", (n,)) for p, n in (("q", h), ("k", kv), ("v", kv))
        }
        norms = ("input_layernorm", "post_attention_layernorm")
        out |= {f"model.layers.{i}.{norm}.weight": ("BF16", (h,)) for norm in norms}
    return out | {"model.norm.weight": ("BF16", (h,)), "lm_head.weight": ("BF16", (512, h))}


def mixture() -> Header:
    """What transformers 5.24 saves for MIXTURE: each expert by itself."""
    h, out = 1024, {}
    for name, entry in dense().items():
        if ".mlp." not in name and not name.endswith(".bias"):
            out[name] = entry
    for i in range(3):
        at = f"model.layers.{i}."
        out |= {f"{at}self_attn.{q}_norm.weight": ("BF16", (128,)) for q in "qk"}
        out[f"{at}mlp.gate.weight"] = ("BF16", (4, h))
        for e in range(4):
            shapes = {"gate_proj": (512, h), "up_proj": (512, h), "down_proj": (h, 512)}
            out |= {f"{at}mlp.experts.{e}.{name}.weight": ("BF16", shape) for name, shape in shapes.items()}
    return out


MODELS: dict[str, tuple[dict[str, Any], Header]] = {"dense": (DENSE, dense()), "mixture": (MIXTURE, mixture())}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_layout_is_explained_to_the_last_byte(tmp_path: Path, store: str, kind: str) -> None:
    config, header = MODELS[kind]
    layout, quantisation = STORES[store]
    folder = write_folder(tmp_path / "m", config | {"quantization_config": quantisation}, quantise(header, layout))
    report = gs.check_checkpoint(folder)
    assert report.differences == ()
    assert report.explained == 1.0
    assert report.checkpoint_parameters == report.parameters == gs.load_model(folder).num_parameters
    assert report.bytes == pytest.approx(report.checkpoint_bytes, rel=0.02)  # g_idx and code books apart


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_weight_that_is_not_quantised_is_named(tmp_path: Path, store: str, kind: str) -> None:
    config, header = MODELS[kind]
    layout, quantisation = STORES[store]
    odd = "model.layers.1.self_attn.k_proj" if kind == "dense" else "model.layers.2.mlp.experts.3.up_proj"
    stored = quantise(header, layout, lambda module: module != odd)
    folder = write_folder(tmp_path / "m", config | {"quantization_config": quantisation}, stored)
    with pytest.raises(gs.ConfigError, match=rf"{odd}\b.* BF16"):
        gs.load_model(folder)
    assert gs.load_model(folder, check=False).num_layers == 3


@pytest.mark.parametrize("kind", MODELS)
def test_a_quantised_checkpoint_whose_config_says_nothing_is_refused(tmp_path: Path, kind: str) -> None:
    config, header = MODELS[kind]
    folder = write_folder(tmp_path / "m", config, quantise(header, fp8_blocks))
    with pytest.raises(gs.ConfigError, match=r"q_proj is stored in F8_E4M3 \(8 bits\), the config says bf16"):
        gs.load_model(folder)


@pytest.mark.parametrize(
    ("said", "held"), [("nf4", gptq), ("awq", nf4), ("fp8_blocks", gptq), ("llm_int8", fp8_blocks)]
)
def test_another_format_of_the_same_width_or_not_is_named(tmp_path: Path, said: str, held: Any) -> None:
    config = DENSE | {"quantization_config": STORES[said][1]}
    folder = write_folder(tmp_path / "m", config, quantise(dense(), held))
    with pytest.raises(gs.ConfigError, match=r"model\.layers\.0\.self_attn\.q_proj .*and \d+ more"):
        gs.load_model(folder)


def test_groups_of_another_size_are_seen_in_the_bytes(tmp_path: Path) -> None:
    quantisation = STORES["awq"][1] | {"group_size": 32}
    folder = write_folder(tmp_path / "m", DENSE | {"quantization_config": quantisation}, quantise(dense(), gptq))
    with pytest.raises(gs.ConfigError, match=r"q_proj takes \d+ bytes with its scales"):
        gs.load_model(folder)


def test_stacked_experts_in_mxfp4_are_explained(tmp_path: Path) -> None:
    config, header = saved("gpt_oss")
    config = config | {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    stored: Header = {}
    for name, (dtype, shape) in header.items():
        if ".layers." in name and int(name.split(".")[2]) > 1:
            continue
        if name.endswith("_proj") and ".experts." in name:  # gpt-oss: outputs, inputs in blocks of 32, two in a byte
            experts, k, n = shape
            stored[f"{name}_blocks"] = ("U8", (experts, n, k // 32, 16))
            stored[f"{name}_scales"] = ("U8", (experts, n, k // 32))
        else:
            stored[name] = (dtype, shape)
    whole = config | {"quantization_config": {"quant_method": "mxfp4"}}
    report = gs.check_checkpoint(write_folder(tmp_path / "m", whole, stored))
    assert report.differences == ()
    assert report.explained == 1.0
    assert report.bytes == report.checkpoint_bytes
    with pytest.raises(gs.ConfigError, match=r"experts\.gate_up_proj is stored in U8 \(4 bits\), the config says bf16"):
        gs.load_model(write_folder(tmp_path / "bare", config, stored))

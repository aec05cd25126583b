"""Makes gguf.json, ggml_types.csv and small.gguf in tests/data/checkpoints.

gguf.json: what llama.cpp's converter writes for a model, by architecture. From the names and shapes that transformers
saves (tensors.json), by the converter's rules: experts stacked, fused experts cut in two, and each name as gguf 0.19
maps it (`TensorNameMap`); metadata as `set_gguf_parameters` states them (llama.cpp at commit 0024aa74,
`convert_hf_to_gguf.py`: the class of all models, and those of the architectures below).

ggml_types.csv: number, weights of a block and bytes of a block of every type (gguf 0.19, `GGML_QUANT_SIZES`).
small.gguf: a file as gguf's own writer makes it, beside what gguf's own reader says of it (small.json).

Run it where transformers and gguf are installed, from tests/data: `python make_gguf_facts.py`.
"""

import itertools
import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
from make_checkpoint_names import saved_tensors, shortened
from make_hf_structure import configs_of_all
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "checkpoints"
TYPES = {
    "arcee": "arcee", "bloom": "bloom", "cohere2": "cohere2", "command-r": "cohere",
    "deepseek2": "deepseek_v3", "dots1": "dots1", "ernie4_5": "ernie4_5", "ernie4_5-moe": "ernie4_5_moe",
    "exaone4": "exaone4", "falcon": "falcon",
    "falcon-h1": "falcon_h1", "jamba": "jamba", "nemotron_h": "nemotron_h",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text",
    "glm4": "glm4", "glm4moe": "glm4_moe", "gpt-oss": "gpt_oss", "gpt2": "gpt2", "gptneox": "gpt_neox",
    "granite": "granite", "granitehybrid": "granitemoehybrid", "granitemoe": "granitemoe",
    "hunyuan-dense": "hunyuan_v1_dense", "hunyuan-moe": "hunyuan_v1_moe", "lfm2": "lfm2", "lfm2moe": "lfm2_moe",
    "llama": "llama", "llama4": "llama4_text", "mamba": "mamba", "mamba2": "mamba2", "minimax-m2": "minimax_m2",
    "nemotron": "nemotron", "olmo": "olmo", "olmo2": "olmo2", "olmoe": "olmoe", "phi2": "phi", "phi3": "phi3",
    "phimoe": "phimoe", "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3", "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text", "qwen3moe": "qwen3_moe", "qwen3next": "qwen3_next", "seed_oss": "seed_oss",
    "smollm3": "smollm3", "stablelm": "stablelm", "starcoder": "gpt_bigcode", "starcoder2": "starcoder2",
}  # fmt: skip
"""The `model_type` behind each architecture; Mixtral is `llama` too."""

AGAIN = {
    "llama+experts": ("llama", "mixtral"),
    "deepseek2+v2": ("deepseek2", "deepseek_v2"),
    "falcon+7b": ("falcon", ""),
    "jamba+experts": ("jamba", ""),
}
"""Further models of an architecture."""

CONFIGS = {
    "falcon": "falcon-40b",
    "falcon+7b": "default:falcon",
    "phi2": "phi-2",
    "starcoder": "default:gpt_bigcode",
    "jamba+experts": "default:jamba",
    "nemotron_h": "small:nemotron_h-dense",
}
"""Where the smallest config of a type is of a kind that llama.cpp does not run."""


def full(tensors: dict[str, list[int]]) -> dict[str, list[int]]:
    """Every name, of entries that stand for several."""

    def numbers(text: str) -> list[int]:
        runs = [run.split("-") for run in text.split(",")]
        return [i for run in runs for i in range(int(run[0]), int(run[-1]) + 1)]

    out = {}
    for entry, shape in tensors.items():
        texts = re.split(r"\{([^}]*)\}", entry)
        for indices in itertools.product(*(numbers(text) for text in texts[1::2])):
            pairs = itertools.zip_longest(texts[::2], map(str, indices), fillvalue="")
            out["".join(itertools.chain.from_iterable(pairs))] = shape
    return out


def converted(tensors: dict[str, list[int]], turned: bool) -> dict[str, list[int]]:
    """As `modify_tensors` of the classes hands them on: experts in stacks, gate and up apart, Conv1D the other way."""
    out: dict[str, list[int]] = {}
    experts: dict[str, list[int]] = {}
    shared = "mlp.shared_expert" if any("block_sparse_moe" in name for name in tensors) else "mlp"
    for name, shape in tensors.items():
        single = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", name)
        gate_up = re.fullmatch(r"(.*\.experts)\.gate_up_proj(_bias)?", name)
        linear = re.fullmatch(r"(.*)\.block_sparse_moe\.input_linear\.weight", name)
        norm = re.fullmatch(r"(.*\.self_attn)\.([qk])_layernorm\.norms\.(\d+)\.weight", name)
        if single:
            stack = f"{single[1]}.{single[3]}.weight"
            experts[stack] = [max(experts.get(stack, [0])[0], int(single[2]) + 1), *shape]
        elif gate_up and gate_up[2]:
            for part in ("gate", "up"):
                out[f"{gate_up[1]}.{part}_proj.bias"] = [shape[0], shape[1] // 2]
        elif gate_up:  # inputs lie first in gpt-oss and Llama 4
            wide = [shape[0], shape[2] // 2, shape[1]] if turned else [shape[0], shape[1] // 2, shape[2]]
            for part in ("gate", "up"):
                out[f"{gate_up[1]}.{part}_proj.weight"] = wide
        elif linear:
            for part in ("gate", "up"):
                out[f"{linear[1]}.block_sparse_moe.experts.{part}.weight"] = [shape[0], shape[1] // 2, shape[2]]
        elif name.endswith(".experts.down_proj"):
            out[f"{name}.weight"] = [shape[0], shape[2], shape[1]] if turned else shape
        elif name.endswith(".experts.down_proj_bias"):
            out[f"{name.removesuffix('_bias')}.bias"] = shape
        elif norm:
            stack = f"{norm[1]}.{norm[2]}_norm.weight"
            experts[stack] = [max(experts.get(stack, [0])[0], int(norm[3]) + 1), *shape]
        elif name.endswith("shared_mlp.input_linear.weight"):
            front = name.removesuffix("shared_mlp.input_linear.weight") + shared
            out |= {f"{front}.{part}_proj.weight": [shape[0] // 2, shape[1]] for part in ("gate", "up")}
        elif name.endswith("shared_mlp.output_linear.weight"):
            out[name.replace("shared_mlp.output_linear", f"{shared}.down_proj")] = shape
        elif name.endswith(("conv1d.weight", "conv.conv.weight")):
            out[name] = [n for i, n in enumerate(shape) if i != 1]
        elif re.search(r"\.(c_attn|c_fc|c_proj)\.weight", name) and turned:
            out[name] = shape[::-1]
        else:
            out[name] = shape
    return out | experts


RENAMED = (
    (r"\.dt_bias$", ".dt_proj.bias"), (r"e_score_correction_bias$", "e_score_correction.bias"),
    (r"\.sinks$", ".sinks.weight"), (r"\.expert_bias$", ".expert_bias.bias"),
)  # fmt: skip
"""What classes rename ahead of the map."""


def named(arch: str, tensors: dict[str, list[int]], layers: int) -> tuple[dict[str, list[int]], list[str]]:
    """Under llama.cpp's names; and names that the map does not know."""
    number = {text: key for key, text in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(number, layers)
    out, lost = {}, []
    for name, shape in tensors.items():
        for pattern, text in RENAMED:
            name = re.sub(pattern, text, name)
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            found = names.get_name(re.sub(r"^(model|transformer)\.", "", name), try_suffixes=(".weight", ".bias"))
        if found is None:
            lost.append(name)
        else:
            out[found] = shape
    return out, lost


def metadata(arch: str, c: dict) -> dict:
    """What `set_gguf_parameters` writes; `c` has every key that the class of the config has."""

    def first(*names: str):
        return next((c[name] for name in names if c.get(name) is not None), None)

    found = {
        "block_count": first("num_hidden_layers", "n_layer"),
        "context_length": first("max_position_embeddings", "n_ctx", "n_positions", "seq_length"),
        "embedding_length": first("hidden_size", "n_embd"),
        "feed_forward_length": first("intermediate_size", "n_inner"),
        "attention.head_count": first("num_attention_heads", "n_head"),
        "attention.head_count_kv": first("num_key_value_heads", "num_kv_heads"),
        "expert_count": first("num_local_experts", "num_experts"),
        "expert_used_count": first("num_experts_per_tok"),
        "attention.key_length": c.get("head_dim"), "attention.value_length": c.get("head_dim"),
        "vocab_size": c.get("vocab_size"),
    }  # fmt: skip
    own = OWN.get(arch)
    found |= own(c) if own else {}
    return {"general.architecture": arch} | {f"{arch}.{k}": v for k, v in found.items() if v is not None}


def _deepseek2(c: dict) -> dict:
    latent, rope = c["kv_lora_rank"], c["qk_rope_head_dim"]
    return {
        "attention.head_count_kv": 1, "leading_dense_block_count": c["first_k_dense_replace"],
        "attention.q_lora_rank": c.get("q_lora_rank"), "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rope, "attention.value_length": latent,
        "attention.key_length_mla": c["qk_nope_head_dim"] + rope, "attention.value_length_mla": c["v_head_dim"],
        "expert_feed_forward_length": c["moe_intermediate_size"], "expert_count": c["n_routed_experts"],
        "expert_shared_count": c["n_shared_experts"], "rope.dimension_count": rope,
    }  # fmt: skip


def _moe(c: dict) -> dict:
    shared = c.get("n_shared_experts")
    return {
        "expert_feed_forward_length": c.get("moe_intermediate_size"),
        "expert_shared_feed_forward_length": c.get("shared_expert_intermediate_size"),
        "expert_count": c.get("n_routed_experts") or c.get("num_experts"), "expert_shared_count": shared,
        "leading_dense_block_count": c.get("first_k_dense_replace"),
    }  # fmt: skip


def _delta(c: dict) -> dict:
    return _moe(c) | {
        "ssm.conv_kernel": c["linear_conv_kernel_dim"], "ssm.state_size": c["linear_key_head_dim"],
        "ssm.group_count": c["linear_num_key_heads"], "ssm.time_step_rank": c["linear_num_value_heads"],
        "ssm.inner_size": c["linear_value_head_dim"] * c["linear_num_value_heads"], "full_attention_interval": 4,
    }  # fmt: skip


def _granite_hybrid(c: dict) -> dict:
    return {
        "attention.head_count_kv": [c["num_key_value_heads"] if t[-9:] == "attention" and "linear" not in t else 0
                                    for t in c["layer_types"]],
        "ssm.conv_kernel": c["mamba_d_conv"], "ssm.state_size": c["mamba_d_state"],
        "ssm.group_count": c["mamba_n_groups"], "ssm.time_step_rank": c["mamba_n_heads"],
        "ssm.inner_size": c["mamba_expand"] * c["hidden_size"], "feed_forward_length": c["shared_intermediate_size"],
    }  # fmt: skip


def _lfm2(c: dict) -> dict:
    types, width = c["layer_types"], c["intermediate_size"]
    if c.get("block_auto_adjust_ff_dim"):
        width = int(c["block_ffn_dim_multiplier"] * int(2 * width / 3))
        width = -(-width // c["block_multiple_of"]) * c["block_multiple_of"]
    return {
        "feed_forward_length": width,
        "attention.head_count_kv": [c["num_key_value_heads"] if t == "full_attention" else 0 for t in types],
        "shortconv.l_cache": c["conv_L_cache"], "expert_feed_forward_length": c.get("moe_intermediate_size"),
        "leading_dense_block_count": c.get("num_dense_layers"),
    }  # fmt: skip


OWN = {
    "deepseek2": _deepseek2, "glm4moe": _moe, "dots1": _moe, "qwen2moe": _moe, "qwen3moe": _moe,
    "qwen3next": _delta, "qwen35": _delta, "qwen35moe": _delta, "granitehybrid": _granite_hybrid,
    "lfm2": _lfm2, "lfm2moe": _lfm2,
    "llama4": lambda c: {
        "interleave_moe_layer_step": c["interleave_moe_layer_step"], "feed_forward_length": c["intermediate_size_mlp"],
        "expert_feed_forward_length": c["intermediate_size"],
    },
    "gpt-oss": lambda c: {
        "attention.sliding_window": c["sliding_window"], "expert_feed_forward_length": c["intermediate_size"],
    },
    "gemma2": lambda c: {
        "attention.sliding_window": c["sliding_window"], "final_logit_softcapping": c["final_logit_softcapping"],
        "attn_logit_softcapping": c["attn_logit_softcapping"],
    },
    "gemma3": lambda c: {"attention.sliding_window": c["sliding_window"]},
    "exaone4": lambda c: {
        "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": [t == "sliding_attention" for t in c["layer_types"]],
    },
    "cohere2": lambda c: {"attention.sliding_window": c["sliding_window"]},
    "phi3": lambda c: {"attention.sliding_window": c["sliding_window"] or 0},
    "phi2": lambda c: {"feed_forward_length": 4 * c["hidden_size"]},
    "bloom": lambda c: {
        "context_length": 2048, "feed_forward_length": 4 * c["hidden_size"], "attention.head_count_kv": c["n_head"],
    },
    "falcon": lambda c: {
        "context_length": 2048, "feed_forward_length": 4 * c["hidden_size"],
        "attention.head_count_kv": c["num_kv_heads"] if c["new_decoder_architecture"] else
        1 if c["multi_query"] else c["num_attention_heads"],
    },
    "gpt2": lambda c: {"feed_forward_length": c["n_inner"] or 4 * c["n_embd"]},
    "starcoder": lambda c: {"feed_forward_length": c["n_inner"] or 4 * c["n_embd"], "attention.head_count_kv": 1},
    "gptneox": lambda c: {"use_parallel_residual": c["use_parallel_residual"]},
    "granitemoe": lambda c: {"expert_shared_feed_forward_length": c.get("shared_intermediate_size")},
    "ernie4_5-moe": lambda c: {
        "expert_count": c["moe_num_experts"], "expert_used_count": c["moe_k"],
        "interleave_moe_layer_step": c["moe_layer_interval"], "leading_dense_block_count": c["moe_layer_start_index"],
        "expert_feed_forward_length": c["moe_intermediate_size"], "expert_shared_count": c["moe_num_shared_experts"],
        "expert_shared_feed_forward_length": c["intermediate_size"] // c["num_key_value_heads"],
    },
    "hunyuan-moe": lambda c: {
        "expert_feed_forward_length": c["intermediate_size"], "expert_used_count": c["moe_topk"],
        "expert_shared_feed_forward_length": c["intermediate_size"],
    },
    "jamba": lambda c: {
        "attention.head_count_kv": [
            c["num_key_value_heads"] if i % c["attn_layer_period"] == c["attn_layer_offset"] else 0
            for i in range(c["num_hidden_layers"])
        ],
        "ssm.conv_kernel": c["mamba_d_conv"], "ssm.inner_size": c["mamba_expand"] * c["hidden_size"],
        "ssm.state_size": c["mamba_d_state"], "ssm.time_step_rank": c["mamba_dt_rank"],
        "attention.key_length": None, "attention.value_length": None, "vocab_size": None,
    },
    "falcon-h1": lambda c: {
        "ssm.conv_kernel": c["mamba_d_conv"], "ssm.inner_size": c["mamba_d_ssm"], "ssm.state_size": c["mamba_d_state"],
        "ssm.time_step_rank": c["mamba_n_heads"], "ssm.group_count": c["mamba_n_groups"],
    },
    "nemotron_h": lambda c: {
        "ssm.conv_kernel": c["conv_kernel"], "ssm.inner_size": c["mamba_num_heads"] * c["mamba_head_dim"],
        "ssm.state_size": c["ssm_state_size"], "ssm.time_step_rank": c["mamba_num_heads"],
        "ssm.group_count": c["n_groups"],
        "attention.head_count_kv": [
            c["num_key_value_heads"] if "full" in kind else 0 for kind in c["layers_block_type"]
        ],
        "feed_forward_length": [c["intermediate_size"] if kind == "mlp" else 0 for kind in c["layers_block_type"]],
        "expert_count": None, "expert_used_count": None,
    },
    "mamba": lambda c: {
        "feed_forward_length": 0, "attention.head_count": 0, "ssm.conv_kernel": c["conv_kernel"],
        "ssm.inner_size": c["intermediate_size"], "ssm.state_size": c["state_size"],
        "ssm.time_step_rank": c["time_step_rank"],
    },
    "mamba2": lambda c: {
        "feed_forward_length": 0, "attention.head_count": 0, "ssm.conv_kernel": c["conv_kernel"],
        "ssm.inner_size": c["expand"] * c["hidden_size"], "ssm.state_size": c["state_size"],
        "ssm.time_step_rank": c["num_heads"], "ssm.group_count": c["n_groups"], "attention.key_length": None,
        "attention.value_length": None,
    },
}  # fmt: skip


def by_hand(name: str, c: dict) -> dict:
    """Models of code that comes with them: the converter cuts fused qkv in three, but for ChatGLM."""
    arch, h, heads = c["model_type"], c["hidden_size"], c["num_attention_heads"]
    layers, inner = c.get("num_hidden_layers") or c["num_layers"], c.get("ffn_hidden_size") or c["intermediate_size"]
    kv, vocab = c.get("num_key_value_heads") or c.get("multi_query_group_num") or heads, c.get("padded_vocab_size")
    wide, vocab = kv * (h // heads), vocab or c["vocab_size"]
    own = {"attn_norm.weight": [h], "ffn_norm.weight": [h], "attn_output.weight": [h, h], "ffn_down.weight": [h, inner]}
    if arch == "chatglm":
        own |= {"attn_qkv.weight": [h + 2 * wide, h], "attn_qkv.bias": [h + 2 * wide], "ffn_up.weight": [2 * inner, h]}
    else:
        own |= {"attn_q.weight": [h, h], "attn_k.weight": [wide, h], "attn_v.weight": [wide, h],
                "ffn_gate.weight": [inner, h], "ffn_up.weight": [inner, h]}  # fmt: skip
    tensors = {"token_embd.weight": [vocab, h], "output_norm.weight": [h], "output.weight": [vocab, h]}
    tensors |= {f"blk.{{0-{layers - 1}}}.{key}": shape for key, shape in own.items()}
    found = {
        "context_length": c.get("seq_length") or c.get("max_position_embeddings") or c["model_max_length"],
        "embedding_length": h, "block_count": layers, "feed_forward_length": inner, "attention.head_count": heads,
        "attention.head_count_kv": kv, "rope.dimension_count": h // heads // (2 if arch == "chatglm" else 1),
    }  # fmt: skip
    known = {"general.architecture": arch} | {f"{arch}.{key}": value for key, value in found.items()}
    return {"config": name, "metadata": known, "tensors": tensors}


BY_HAND = ("internlm/internlm2-7b", "baichuan-inc/Baichuan-13B-Base", "zai-org/chatglm3-6b")


def write_types() -> None:
    """ggml_types.csv."""
    rows = [(kind.name, kind.value, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType]
    text = "".join(f"{name},{number},{weights},{size}\n" for name, number, weights, size in rows)
    (HERE / "ggml_types.csv").write_text("type,number,weights,bytes\n" + text)


def write_small() -> None:
    """small.gguf and small.json: a Llama of one layer, in several types."""
    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(HERE / "small.gguf", "llama")
    writer.add_name("Small")
    for add, value in (
        (writer.add_block_count, 1), (writer.add_embedding_length, 32), (writer.add_feed_forward_length, 64),
        (writer.add_head_count, 4), (writer.add_head_count_kv, 2), (writer.add_context_length, 128),
    ):  # fmt: skip
        add(value)
    writer.add_token_list([f"token {i}" for i in range(40)])
    writer.add_token_scores([0.5] * 40)
    shapes = {
        "token_embd.weight": ((40, 32), kinds.Q8_0), "output_norm.weight": ((32,), kinds.F32),
        "output.weight": ((40, 32), kinds.Q5_1), "blk.0.attn_norm.weight": ((32,), kinds.F32),
        "blk.0.attn_q.weight": ((32, 32), kinds.Q4_0), "blk.0.attn_k.weight": ((16, 32), kinds.Q4_1),
        "blk.0.attn_v.weight": ((16, 32), kinds.Q5_0), "blk.0.attn_output.weight": ((32, 32), kinds.IQ4_NL),
        "blk.0.ffn_norm.weight": ((32,), kinds.F32), "blk.0.ffn_gate.weight": ((64, 32), kinds.MXFP4),
        "blk.0.ffn_up.weight": ((64, 32), kinds.F16), "blk.0.ffn_down.weight": ((32, 64), kinds.BF16),
    }  # fmt: skip
    for name, (shape, kind) in shapes.items():
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        raw = np.zeros((*shape[:-1], shape[-1] // weights * size), dtype=np.uint8)
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = gguf.GGUFReader(HERE / "small.gguf")
    rows = {t.name: [t.tensor_type.name, [int(n) for n in t.shape[::-1]], int(t.n_bytes)] for t in read.tensors}
    (HERE / "small.json").write_text(json.dumps(rows, indent=0) + "\n")


def main() -> None:
    write_types()
    write_small()
    saved = json.loads((HERE / "tensors.json").read_text())
    configs = configs_of_all()
    rows = {}
    for key, (arch, kind) in ({arch: (arch, kind) for arch, kind in TYPES.items()} | AGAIN).items():
        name = CONFIGS.get(key) or saved[kind]["config"]
        data = dict(configs[name])
        saved_as = full(saved[kind]["tensors"]) if key not in CONFIGS else saved_tensors(data)
        whole = CONFIG_MAPPING[data.pop("model_type")](**data).to_dict()
        whole |= {"num_hidden_layers": len(whole["layers_block_type"])} if kind == "nemotron_h" else {}
        known = metadata(arch, whole)
        turned = kind in ("gpt_oss", "llama4_text", "gpt2")
        tensors = converted(saved_as, turned)
        tensors, lost = named(arch, tensors, known[f"{arch}.block_count"])
        rows[key] = {"config": name, "metadata": known, "tensors": shortened(tensors)}
        if lost:
            print(key, "left out:", *sorted({re.sub(r"\.\d+\.", ".#.", name) for name in lost}))
    rows |= {configs[name]["model_type"]: by_hand(name, configs[name]) for name in BY_HAND}
    lines = ",\n".join(f'"{key}": {json.dumps(rows[key], separators=(",", ":"))}' for key in sorted(rows))
    (HERE / "gguf.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())

"""Converts the metadata of a GGUF file to a Hugging Face config.

Keys are those that llama.cpp's converter writes (`convert_hf_to_gguf.py`, `set_gguf_parameters` of each class; gguf
0.19, `Keys`). Properties missing from the metadata follow from the tensors: biases, norms, tied embeddings. The config
is then read like any other of its family, and the model is compared with the file's tensors.
"""

from __future__ import annotations

from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.gguf import GgufFile, Long
from graphsim.models.gguf.facts import Config, Facts, Reader
from graphsim.models.gguf.hybrids import HYBRIDS
from graphsim.models.gguf.mixtures import MIXTURES
from graphsim.units import short

_NULL = ("q_lora_rank", "sliding_window")
"""Keys set to null if absent, because the class would otherwise assume a default value."""


def config_of(file: GgufFile, where: str) -> Config:
    """The Hugging Face config of a file. Raises ConfigError for an unknown architecture, naming the known ones."""
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        raise ConfigError(f"{where}: general.type = {short(kind)} is not allowed; expected a model")
    name = file.metadata.get("general.architecture")
    reader = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if reader is None:
        raise ConfigError(f"{where}: general.architecture = {short(name)} is not known; {_choices(name)}")
    facts = Facts(file, str(name), where)
    title = file.metadata.get("general.name")
    found = _usual(facts) | reader(facts)
    found = {key: value for key, value in found.items() if value is not None or key in _NULL}
    return found | ({"_name_or_path": title} if isinstance(title, str) and 0 < len(title) < 200 else {})


def _choices(name: Any) -> str:
    near = choices_text(name, ARCHITECTURES).partition("allowed: ")[0]
    return f"{near}allowed: {', '.join(sorted(ARCHITECTURES))}"


def _usual(facts: Facts) -> Config:
    """The keys that nearly all architectures share."""
    tokens = facts.file.metadata.get("tokenizer.ggml.tokens")
    named = tokens.length if isinstance(tokens, Long) else None
    return {
        "hidden_size": facts.need("embedding_length"),
        "num_hidden_layers": facts.layers,
        "num_attention_heads": facts.get("attention.head_count"),
        "num_key_value_heads": facts.get("attention.head_count_kv"),
        "head_dim": facts.get("attention.key_length"),
        "intermediate_size": facts.get("feed_forward_length"),
        "vocab_size": facts.width("token_embd.weight") or facts.get("vocab_size") or named,
        "max_position_embeddings": facts.get("context_length"),
        "tie_word_embeddings": "output.weight" not in facts.tensors,
        "sliding_window": facts.get("attention.sliding_window"),
        "final_logit_softcapping": facts.get("final_logit_softcapping"),
        "attn_logit_softcapping": facts.get("attn_logit_softcapping"),
        "attention_bias": facts.has("attn_q.bias") or facts.has("attn_qkv.bias"),
        "mlp_bias": facts.has("ffn_up.bias"),
        "layer_types": facts.windows(),
    }


def _plain(kind: str, **more: Any) -> Reader:
    """A reader for a family that the usual keys describe.

    more: additional keys of the config
    """
    return lambda facts: {"model_type": kind, **more}


def _gemma(kind: str, every: int) -> Reader:
    """A reader for Gemma.

    every: interval of layers with full attention among sliding ones; 0 if all have full attention
    """

    def read(facts: Facts) -> Config:
        types = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(facts.layers)]
        return {"model_type": kind, "layer_types": types, "attention_bias": False}

    return read if every else _plain(kind, attention_bias=False)


def _phi3(facts: Facts) -> Config:
    return {"model_type": "phi3", "head_dim": None}


def _falcon(facts: Facts) -> Config:
    new = facts.has("attn_norm_2.weight") or (facts.get("attention.head_count_kv") or 1) > 1
    return {
        "model_type": "falcon", "new_decoder_architecture": new, "bias": facts.has("attn_qkv.bias"),
        "multi_query": not new, "num_kv_heads": facts.get("attention.head_count_kv"), "alibi": False,
        "ffn_hidden_size": facts.get("feed_forward_length"), "parallel_attn": not facts.has("ffn_norm.weight"),
        "num_ln_in_parallel_attn": 2 if facts.has("attn_norm_2.weight") else 1, "head_dim": None,
    }  # fmt: skip


def _gpt2(kind: str) -> Reader:
    def read(facts: Facts) -> Config:
        positions = facts.width("position_embd.weight")
        return {"model_type": kind, "n_positions": positions, "n_inner": facts.get("feed_forward_length"),
                "multi_query": (facts.get("attention.head_count_kv") or 1) == 1}  # fmt: skip

    return read


def _stablelm(facts: Facts) -> Config:
    return {
        "model_type": "stablelm", "use_qkv_bias": facts.has("attn_q.bias"),
        "qk_layernorm": facts.has("attn_q_norm.weight"), "use_parallel_residual": not facts.has("ffn_norm.weight"),
    }  # fmt: skip


def _starcoder2(facts: Facts) -> Config:
    return {"model_type": "starcoder2", "use_bias": facts.has("attn_q.bias"), "norm_type": "layer_norm"}


def _cohere(facts: Facts) -> Config:
    return {"model_type": "cohere", "use_qk_norm": facts.has("attn_q_norm.weight")}


def _chatglm(facts: Facts) -> Config:
    """ChatGLM 2 and 3, GLM-4: fused qkv with few kv heads, fused gate and up."""
    return {
        "model_type": "chatglm", "num_layers": facts.layers, "ffn_hidden_size": facts.get("feed_forward_length"),
        "padded_vocab_size": facts.width("token_embd.weight"), "multi_query_attention": True,
        "multi_query_group_num": facts.get("attention.head_count_kv"),
        "kv_channels": facts.need("embedding_length") // max(facts.need("attention.head_count"), 1),
        "add_qkv_bias": facts.has("attn_qkv.bias"), "add_bias_linear": facts.has("ffn_up.bias"),
        "num_hidden_layers": None, "num_key_value_heads": None, "head_dim": None, "vocab_size": None,
        "intermediate_size": None, "attention_bias": None, "mlp_bias": None, "max_position_embeddings": None,
        "seq_length": facts.get("context_length"),
    }  # fmt: skip


def _seed_oss(facts: Facts) -> Config:
    return {"model_type": "seed_oss", "attention_out_bias": facts.has("attn_output.bias")}


_DENSE: dict[str, Reader] = {
    "arcee": _plain("arcee"),
    "baichuan": _plain("baichuan", attention_bias=None, mlp_bias=None, num_key_value_heads=None, head_dim=None),
    "bloom": lambda facts: {
        "model_type": "bloom",
        "n_layer": facts.layers,
        "n_head": facts.get("attention.head_count"),
    },
    "chatglm": _chatglm,
    "cohere2": _plain("cohere2"),
    "command-r": _cohere,
    "ernie4_5": lambda facts: {"model_type": "ernie4_5", "use_bias": facts.has("attn_q.bias")},
    "exaone4": _plain("exaone4"),
    "falcon": _falcon,
    "gemma": _gemma("gemma", 0),
    "gemma2": _gemma("gemma2", 2),
    "gemma3": _gemma("gemma3_text", 6),
    "glm4": _plain("glm4"),
    "gpt2": _gpt2("gpt2"),
    "gptneox": lambda facts: {"model_type": "gpt_neox", "use_parallel_residual": facts.get("use_parallel_residual")},
    "granite": _plain("granite"),
    "hunyuan-dense": _plain("hunyuan_v1_dense"),
    "internlm2": lambda facts: {"model_type": "internlm2", "bias": facts.has("attn_q.bias"), "attention_bias": None},
    "mistral3": _plain("mistral"),
    "nemotron": _plain("nemotron"),
    "olmo": _plain("olmo"),
    "olmo2": _plain("olmo2"),
    "phi2": _plain("phi"),
    "phi3": _phi3,
    "qwen2": _plain("qwen2"),
    "qwen2vl": _plain("qwen2"),
    "qwen3": _plain("qwen3"),
    "qwen3vl": _plain("qwen3"),
    "seed_oss": _seed_oss,
    "smollm3": _plain("smollm3"),
    "stablelm": _stablelm,
    "starcoder": _gpt2("gpt_bigcode"),
    "starcoder2": _starcoder2,
}

ARCHITECTURES: dict[str, Reader] = {**_DENSE, **MIXTURES, **HYBRIDS}
"""Readers by `general.architecture`."""

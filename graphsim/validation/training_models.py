"""The model of a training row: from the catalog, or built from the sizes in its name and note.

Megatron-LM's tests name a folder and have their arguments in the note; llm-foundry trains MPTs of other sizes

(`scripts/train/yamls/pretrain/mpt-*.yaml`), with learned positions for the run's sequence length; papers give sizes in
brackets, which `graphsim.files.model_sizes` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphsim.errors import ConfigError
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model

MPT_SIZES = {
    "125m": (768, 12, 12), "350m": (1024, 24, 16), "760m": (1536, 24, 12), "1b": (2048, 24, 16), "3b": (2560, 32, 20),
    "7b": (4096, 32, 32), "13b": (5120, 40, 40), "30b": (7168, 48, 56), "70b": (8192, 80, 64),
}  # fmt: skip
"""Hidden size, layers and heads of llm-foundry's models; its vocabulary has 50,368 entries, all layers have biases."""
MPT_VOCABULARY = 50368

VOCABULARIES = {
    "nemotron_2_256k": 256000, "nemotron_3": 256000, "multiMixV8": 131072, "mcore_mistral": 131072, "llama3": 128256,
    "qwen3": 151936, "bert": 28996, "deepseek": 129280,
}  # fmt: skip
"""Vocabulary sizes of tokenizers, by a word of their path (`tokenizer-model`)."""
GPT2_VOCABULARY = 50257
"""Vocabulary size of GPT-2's byte-pair encoding, the default for GPTs in Megatron-LM's tests."""
DIVISIBLE = 128
"""Megatron-LM's make-vocab-size-divisible-by, of each tensor-parallel rank."""
_ARGUMENT = re.compile(r"\b([a-z][a-z0-9]*(?:-[a-z0-9]+)+)=(\S+)")
_MPT = re.compile(r"mpt-?\s*(\d+(?:\.\d+)?[mb])", re.IGNORECASE)
_REFUSED = {
    "num-experts": "experts under Megatron-LM's arguments are not simulated",
    "multi-latent-attention": "multi-latent attention under Megatron-LM's arguments is not simulated",
    "is-hybrid-model": "hybrid models under Megatron-LM's arguments are not simulated",
}
_TAKEN = {
    "num-layers": "num_layers", "hidden-size": "hidden_size", "ffn-hidden-size": "ffn_hidden_size",
    "num-attention-heads": "num_attention_heads", "kv-channels": "kv_channels",
}  # fmt: skip


def model_of(text: str, framework: str, note: str, seq_len: float, tp: float) -> ModelConfig:
    """The model. Raises ConfigError for an unknown name or a model that is not simulated."""
    if "foundry" in framework.lower() and (found := _MPT.fullmatch(text.strip())):
        return _mpt(found[1].lower(), text, seq_len)
    arguments = arguments_of(note)
    if "num-layers" in arguments:
        return _megatron(text, arguments, seq_len, tp)
    return load_model(text)


def arguments_of(note: str) -> dict[str, str]:
    """Megatron-LM's arguments in a note: `num-layers=24 hidden-size=1024 …`."""
    return {name: value.rstrip(";,") for name, value in _ARGUMENT.findall(note)}


def _mpt(size: str, text: str, seq_len: float) -> ModelConfig:
    if size not in MPT_SIZES:
        raise ConfigError(f"model {text!r}: llm-foundry has no such size; known: {', '.join(MPT_SIZES)}")
    hidden, layers, heads = MPT_SIZES[size]
    return load_model({
        "model_type": "megatron-gpt2", "hidden_size": hidden, "num_layers": layers, "num_attention_heads": heads,
        "vocab_size": MPT_VOCABULARY, "max_position_embeddings": int(seq_len), "_name_or_path": text,
    })  # fmt: skip


def _megatron(text: str, arguments: Mapping[str, str], seq_len: float, tp: float) -> ModelConfig:
    """A GPT or BERT from Megatron-LM's arguments, with defaults as in its `megatron/training/arguments.py`."""
    for name, why in _REFUSED.items():
        if arguments.get(name, "false") not in ("false", "0", "None"):
            raise ConfigError(why)
    if "_grpo_" in text:
        raise ConfigError("a run of reinforcement learning holds more than a training step does")
    if "uneven" in text or "account_for" in text:
        raise ConfigError("its layers are dealt to the stages unevenly, and the note does not say how")
    if text.startswith("hybrid/"):
        raise ConfigError(_REFUSED["is-hybrid-model"])
    vocabulary = _padded(
        _vocabulary(text, arguments), int(arguments.get("make-vocab-size-divisible-by", DIVISIBLE)), tp
    )
    sizes = {key: _whole(name, arguments[name]) for name, key in _TAKEN.items() if name in arguments}
    if text.startswith("bert/"):
        return load_model({
            "model_type": "megatron-bert", "architectures": ["MegatronBertForCausalLM"], "vocab_size": vocabulary,
            "hidden_size": sizes["hidden_size"], "num_hidden_layers": sizes["num_layers"],
            "num_attention_heads": sizes["num_attention_heads"], "intermediate_size": 4 * sizes["hidden_size"],
            "max_position_embeddings": int(seq_len), "type_vocab_size": 2, "_name_or_path": text,
        })  # fmt: skip
    config: dict[str, Any] = {
        "model_type": "megatron-gpt2", "max_position_embeddings": int(seq_len), "vocab_size": vocabulary, **sizes,
        "position_embedding_type": arguments.get("position-embedding-type", "learned_absolute"),
        "normalization": arguments.get("normalization", "LayerNorm"), "_name_or_path": text,
    }  # fmt: skip
    if "num-query-groups" in arguments:
        config |= {"group_query_attention": True, "num_query_groups": int(arguments["num-query-groups"])}
    for name in (
        "swiglu",
        "disable-bias-linear",
        "untie-embeddings-and-output-weights",
        "qk-layernorm",
        "add-qkv-bias",
    ):
        if name in arguments:
            config[name.replace("-", "_")] = arguments[name] == "true"
    return load_model(config)


def _vocabulary(text: str, arguments: Mapping[str, str]) -> int:
    if "vocab-size" in arguments:
        return _whole("vocab-size", arguments["vocab-size"])
    path = arguments.get("tokenizer-model", "bert" if text.startswith("bert/") else "")
    return next((size for word, size in VOCABULARIES.items() if word in path), GPT2_VOCABULARY)


def _padded(entries: int, divisible: int, tp: float) -> int:
    step = divisible * max(int(tp), 1)
    return -(-entries // step) * step


def _whole(name: str, value: str) -> int:
    if not value.isdigit():
        raise ConfigError(f"note: {name} = {value!r} is not a whole number")
    return int(value)

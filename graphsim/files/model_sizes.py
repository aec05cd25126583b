"""Models described by their sizes: `megatron-22B (L=48 h=6144 a=64, ffn 4h, v=51200)`.

Papers and tables of training runs describe Megatron-LM's GPT models this way: layers, hidden size, heads, MLP width and
vocabulary size, in the notation of Narayanan et al. (arXiv 2104.04473, table 1).
"""

from __future__ import annotations

import re
from typing import Any

from graphsim.errors import ConfigError
from graphsim.units import short

POSITIONS = 2048
"""Default number of learned positions: the sequence length of the GPT-3 paper and of Megatron-LM's papers."""

_SIZES = re.compile(r"\s*([\w .+-]*?)\s*\(([^()]*)\)\s*")
_ENTRY = re.compile(r"([a-z][a-z_-]*)\s*[= ]\s*(\d+(?:\.\d+)?)([hk]?)(?=[\s,]|$)")
_KEYS = {
    "num_layers": ("l", "layers", "num-layers", "num_layers"),
    "hidden_size": ("h", "hidden", "d", "d_model", "hidden-size", "hidden_size"),
    "num_attention_heads": ("a", "heads", "num-attention-heads", "num_attention_heads"),
    "num_query_groups": ("g", "groups", "kv", "kv-heads", "kv_heads", "num-query-groups"),
    "ffn_hidden_size": ("f", "ffn", "ffn-hidden-size", "ffn_hidden_size"),
    "vocab_size": ("v", "vocab", "vocab-size", "vocab_size"),
    "max_position_embeddings": ("s", "seq", "positions", "seq-length", "max-position-embeddings"),
}
_KEY_OF = {word: key for key, words in _KEYS.items() for word in words}
_NEEDED = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size")


def sized_model(text: str) -> dict[str, Any] | None:
    """The Megatron arguments that a name states in parentheses; None for a name without any.

    Raises ConfigError for incomplete sizes or unknown text among them.
    """
    found = _SIZES.fullmatch(text)
    if not found or "=" not in found[2]:
        return None
    sizes: dict[str, Any] = {}
    given = found[2].lower()
    for entry in _ENTRY.finditer(given):
        key = _KEY_OF.get(entry[1])
        if key is None or key in sizes:
            raise ConfigError(_strange(text, entry[0]))
        sizes[key] = (float(entry[2]) * (1024 if entry[3] == "k" else 1), entry[3] == "h")
    if left := _ENTRY.sub("", given).strip(", "):
        raise ConfigError(_strange(text, left))
    missing = [_KEYS[key][0] for key in _NEEDED if key not in sizes]
    if missing:
        listed = ", ".join(missing)
        raise ConfigError(f"model {short(text)} gives no {listed}; write it as in L=48 h=6144 a=64 v=51200")
    hidden = sizes["hidden_size"][0]
    numbers = {key: number * hidden if times else number for key, (number, times) in sizes.items()}
    if strange := next((key for key, number in numbers.items() if number != int(number)), None):
        raise ConfigError(f"model {short(text)}: {_KEYS[strange][0]} is not a whole number")
    config: dict[str, Any] = {key: int(number) for key, number in numbers.items()}
    if "num_query_groups" in config:
        config["group_query_attention"] = True
    return {"model_type": "megatron-gpt2", "max_position_embeddings": POSITIONS, **config, "_name_or_path": found[1]}


def _strange(text: str, part: str) -> str:
    known = ", ".join(words[0] for words in _KEYS.values())
    return f"model {short(text)}: {short(part)} is not understood; write {known} as in L=48, each once"

"""Checkpoints as their engines see them: modules by name, written down by hand, and each method's rule for a name.

Independent of the readers: a small model's linear layers with their shapes, what a module weighs in a format, and the
rules of the libraries in their plainest form, one module at a time.
"""

from __future__ import annotations

import fnmatch
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

HIDDEN, INNER, VOCABULARY = 1024, 2048, 3000
HEADS, KV_HEADS, HEAD_DIM = 8, 2, 128

DENSE: dict[str, Any] = {
    "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 6,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS, WIDTH = 4, 512
MOE: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": HIDDEN, "intermediate_size": INNER, "moe_intermediate_size": WIDTH,
    "num_experts": EXPERTS, "num_experts_per_tok": 2, "num_hidden_layers": 4, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
}  # fmt: skip
TIED: dict[str, Any] = DENSE | {"model_type": "qwen3", "head_dim": HEAD_DIM, "tie_word_embeddings": True}
MODELS = {"dense": DENSE, "moe": MOE, "tied": TIED}


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer of the checkpoint: its name, outputs and inputs."""

    name: str
    n: int
    k: int


def linears_of(config: dict[str, Any]) -> Iterator[Linear]:
    """Linear layers as transformers 4 has them, experts one by one; the router is no linear layer of transformers 5."""
    keys, queries = KV_HEADS * HEAD_DIM, HEADS * HEAD_DIM
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for leaf, n, k in (
            ("q_proj", queries, HIDDEN), ("k_proj", keys, HIDDEN), ("v_proj", keys, HIDDEN), ("o_proj", HIDDEN, queries)
        ):  # fmt: skip
            yield Linear(f"{layer}.self_attn.{leaf}", n, k)
        mlps = [(f"{layer}.mlp", INNER)]
        if "num_experts" in config:
            mlps = [(f"{layer}.mlp.experts.{e}", WIDTH) for e in range(EXPERTS)]
        for mlp, inner in mlps:
            yield Linear(f"{mlp}.gate_proj", inner, HIDDEN)
            yield Linear(f"{mlp}.up_proj", inner, HIDDEN)
            yield Linear(f"{mlp}.down_proj", HIDDEN, inner)
    if not config["tie_word_embeddings"]:
        yield Linear("lm_head", VOCABULARY, HIDDEN)


def other_weights(config: dict[str, Any]) -> int:
    """Embeddings, norms and routers, which stay in 16 bits."""
    layers, own_norms = config["num_hidden_layers"], 0 if config["model_type"] == "llama" else 2 * HEAD_DIM
    routers = layers * config.get("num_experts", 0) * HIDDEN
    return VOCABULARY * HIDDEN + HIDDEN * (2 * layers + 1) + own_norms * layers + routers


Weigh = Callable[[Linear], float]


def groups(bits: float, group: int, zeros: float = 0.0) -> Weigh:
    """So many bits a weight, a 16-bit scale and `zeros` bits of a zero point for each group; one per output at -1."""
    return lambda m: m.n * m.k * bits / 8 + (m.n * m.k / group if group > 0 else m.n) * (2 + zeros / 8)


def wide(m: Linear) -> float:
    return 2.0 * m.n * m.k


BYTES: dict[str, Weigh] = {
    "nf4": lambda m: m.n * m.k / 2 + m.n * m.k / 64 * 4,
    "nf4_dq": lambda m: m.n * m.k / 2 + m.n * m.k / 64 + m.n * m.k / (64 * 256) * 4,
    "llm_int8": lambda m: m.n * m.k + 4 * m.n,
    "fp8": lambda m: m.n * m.k,
    "fp8_channel": lambda m: m.n * m.k + 2 * m.n,
    "fp8_block": lambda m: m.n * m.k + 4 * m.n * m.k / 128**2,
    "nvfp4": lambda m: m.n * m.k / 2 + m.n * m.k / 16,
    "mxfp4": lambda m: m.n * m.k / 2 + m.n * m.k / 32,
    "int8": lambda m: m.n * m.k + 2 * m.n,
}

Choice = Callable[[str], Weigh]
"""What a checkpoint stores the module of that name in."""


def total(config: dict[str, Any], choice: Choice) -> float:
    """Bytes of all weights, one module at a time."""
    return 2.0 * other_weights(config) + sum(choice(m.name)(m) for m in linears_of(config))


def alike_experts(config: dict[str, Any], choice: Choice) -> bool:
    """Whether gate and up of all of a layer's experts are in one format, and down of all of them."""
    kinds: dict[str, set[float]] = {}
    same = Linear("", 1024, 1024)
    for m in linears_of(config):
        if ".experts." in m.name:
            front, _, rest = m.name.partition(".experts.")
            kinds.setdefault(f"{front}.{rest.endswith('down_proj')}", set()).add(choice(m.name)(same))
    return all(len(found) == 1 for found in kinds.values())


def in_transformers_list(name: str, entries: list[str]) -> bool:
    """transformers 5.24, `quantizers_utils.should_convert_module`, one entry at a time."""
    boundary = r"(?:(?<=\.)|(?=\.|$))"
    return any(re.match(rf"(?:{entry}){boundary}", name) or name.endswith(entry) for entry in entries)


def in_compressed_tensors(name: str, entry: str) -> bool:
    """compressed-tensors, `utils.match.match_name` and `_match_class`: every module here is a Linear."""
    return entry == "Linear" or (re.match(entry[3:], name) is not None if entry.startswith("re:") else entry == name)


def in_wildcards(name: str, entries: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, entry) for entry in entries)


LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def some_names(rng: random.Random, config: dict[str, Any]) -> list[str]:
    """Whole names, experts' among them only as whole layers: engines have no other."""
    names = [m.name for m in linears_of(config) if ".experts." not in m.name]
    return rng.sample(names, rng.randint(0, 8))


def some_fronts(rng: random.Random, config: dict[str, Any]) -> list[str]:
    """Layers and their halves."""
    layers = [f"model.layers.{i}" for i in range(config["num_hidden_layers"])]
    kinds = ["", ".self_attn", ".mlp", *([".mlp.experts"] if "num_experts" in config else [])]
    return [rng.choice(layers) + rng.choice(kinds) for _ in range(rng.randint(0, 3))]


def some_patterns(rng: random.Random, config: dict[str, Any]) -> list[str]:
    """Regular expressions over layers and leaves."""
    last = config["num_hidden_layers"] - 1
    first = rng.randint(0, last)
    two = "|".join(rng.sample(LEAVES, 2))
    made = [
        rf".*{rng.choice(LEAVES)}", r".*self_attn.*", r".*\.mlp\..*", rf"model\.layers\.[{first}-{last}]\..*",
        rf".*layers\.{rng.randint(0, last)}\.(self_attn|mlp)\..*", r".*lm_head", rf".*({two})$",
    ]  # fmt: skip
    return rng.sample(made, rng.randint(0, 3))

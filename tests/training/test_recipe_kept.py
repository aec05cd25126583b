"""What a layer keeps for its backward pass under each trainer's code, as lists of tensors.

One decoder layer of a Llama, in units of its input in 16 bits; k: KV heads over heads, f: MLP width over hidden size.
HF's eager norm keeps its input in fp32 (2), and what it gives if its weight is trained (1); a fused one its input (1).
Attention keeps q, k, v and what it gives, which o's adapter shares: 2 + 2 k. silu(g) u keeps g, u and silu(g), or g and
u where it is one kernel. An adapted linear keeps its input: shared with its siblings, or a copy of its own wherever
PEFT casts it (2 in fp32), and a mask of a byte (0.5) where it is dropped.
"""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import pytest

from graphsim.lora.config import LoraConfig
from graphsim.training.methods import load_method
from graphsim.training.recipe import load_recipe
from graphsim.training.rules import rules_of
from graphsim.training.setup import TrainingSetup
from tests.passes.autograd import kept_in, step_of

TOKENS, HIDDEN, MLP, HEADS, KV_HEADS, RANK = 256, 512, 1792, 8, 2, 8
UNIT = 2 * TOKENS * HIDDEN
K, F = KV_HEADS / HEADS, MLP / HIDDEN
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WIDTHS = {"q": (1, 1), "k": (1, K), "v": (1, K), "o": (1, 1), "gate": (1, F), "up": (1, F), "down": (F, 1)}
FACTORS = sum(RANK * HIDDEN * (inputs + outputs) for inputs, outputs in WIDTHS.values())
"""Elements of all adapters of a layer."""
SUMS = 2 * 4 * TOKENS + 4 * TOKENS * HEADS
"""One number in fp32 for each token of two norms, and for each token and head of attention."""
MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": MLP,
    "num_hidden_layers": 3, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": 4096,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


def kept_bytes(recipe: str, adapted: bool) -> float:
    """Of a middle layer."""
    setup = SimpleNamespace(
        recipe=load_recipe(recipe),
        recompute="none",
        recompute_every=1,
        method=load_method("lora" if adapted else "full"),
    )
    rules = rules_of(cast("TrainingSetup", setup))
    given: dict[str, Any] = {field.name: getattr(rules, field.name) for field in fields(rules)}
    step = step_of(MODEL, LoraConfig(rank=RANK, target_modules=ADAPTED) if adapted else None, float(TOKENS), **given)
    layer = next(name for name in step if name.endswith("_2.backward"))
    return float(sum(kept_in(step, layer).values()))


ATTENTION = 2 + 2 * K


@pytest.mark.parametrize(
    ("recipe", "units"),
    [
        ("transformers", 2 * 3 + 1 + ATTENTION + 1 + 3 * F + F),
        ("torchtune", 2 * 3 + 1 + ATTENTION + 1 + 3 * F + F),
        ("torchtune-compile", 2 * 1 + 1 + ATTENTION + 1 + 2 * F + F),
        ("megatron-bridge", 2 * 1 + 1 + ATTENTION + 1 + 2 * F + F),
    ],
)
def test_full_fine_tuning(recipe: str, units: float) -> None:
    assert kept_bytes(recipe, adapted=False) == UNIT * units + SUMS


@pytest.mark.parametrize(
    ("recipe", "units", "more"),
    [
        # fp32 copies of seven inputs, and what A gives in fp32
        ("peft", 2 * 2 + ATTENTION + 3 * F + 2 * (6 + F), 7 * 4 * TOKENS * RANK),
        # the same with masks
        ("fms-hf-tuning", 2 * 2 + ATTENTION + 3 * F + 2.5 * (6 + F), 7 * 4 * TOKENS * RANK),
        # inputs shared among siblings; o's is what attention gives
        ("peft-bf16", 2 * 2 + ATTENTION + 3 * F + 1 + 1 + F, 7 * 2 * TOKENS * RANK),
        ("torchtune", 2 * 2 + ATTENTION + 3 * F + 1 + 1 + F, 7 * 2 * TOKENS * RANK),
        # copies in bf16 of seven inputs and of all factors
        ("peft-autocast", 2 * 2 + ATTENTION + 3 * F + 6 + F, 7 * 2 * TOKENS * RANK + 2 * FACTORS),
        ("torchtune-compile", 2 * 1 + ATTENTION + 2 * F + 1 + 1 + F, 7 * 2 * TOKENS * RANK),
    ],
)
def test_adapters_on_all_linears(recipe: str, units: float, more: float) -> None:
    assert kept_bytes(recipe, adapted=True) == UNIT * units + SUMS + more


def test_what_a_trainer_fuses_is_not_kept() -> None:
    """Unsloth's and Axolotl's kernels keep less than PEFT's modules under the same autocast."""
    eager = kept_bytes("peft-autocast", adapted=True)
    assert kept_bytes("unsloth", adapted=True) < kept_bytes("axolotl-lora-kernels", adapted=True) < eager

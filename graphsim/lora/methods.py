"""PEFT's methods, by the `peft_type` of an adapter's file: those that are simulated, and notes on the others.

Names as of PEFT 0.21.2 (`utils/peft_types.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from graphsim.lora.variant import Variant
from graphsim.lora.variants import known

TOKENS = "TRAINABLE_TOKENS"
"""Rows of a table that are trained, without any factors."""

VIRTUAL = "it puts virtual tokens before every prompt; simulate num_virtual_tokens more input_tokens and no adapter"

NOT_SIMULATED: Mapping[str, str] = {
    "PROMPT_TUNING": VIRTUAL,
    "MULTITASK_PROMPT_TUNING": VIRTUAL,
    "P_TUNING": VIRTUAL,
    "CPT": VIRTUAL,
    "PREFIX_TUNING": "it puts keys and values of virtual tokens into every layer's cache",
    "CARTRIDGE": "it puts keys and values of a trained cache into every layer",
    "ADAPTION_PROMPT": "it puts gated attention to a prompt into the last layers",
    "POLY": "it mixes several adapters by a routing per task",
    "XLORA": "it mixes several adapters by a classifier of every token",
    "BONE": "PEFT 0.21 no longer has it; it became MISS",
    **dict.fromkeys(
        (
            "ADAMSS", "BEFT", "DEFT", "FROD", "GLORA", "GRALORA", "HIRA", "LILY", "OSF", "PEANUT", "PSOFT", "PVERA",
            "SHADOW", "SUPERTUNING", "TINYLORA", "UNILORA", "WAVEFT",
        ),
        "",
    ),
}  # fmt: skip
"""The other methods, with a hint on each; "" for none."""


@cache
def _by_type(names: tuple[str, ...]) -> Mapping[str, Variant]:
    return {kind.peft_type: kind for kind in map(known().__getitem__, names) if kind.peft_type != "LORA"}


def methods() -> Mapping[str, Variant]:
    """The variant of each simulated method except LoRA, which has several, and trained tokens, which have none."""
    return _by_type(tuple(known()))


def simulated() -> list[str]:
    """The names of all simulated methods."""
    return sorted({"LORA", TOKENS, *methods()})

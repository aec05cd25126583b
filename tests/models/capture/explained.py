"""Why graphsim's numbers are not torch's, where they are not: a reason for each architecture and kind of number."""

from __future__ import annotations

ABSORBED = (
    "transformers expands every compressed vector of the context again in each step; engines multiply queries and "
    "results by those matrices instead"
)
CHOSEN = f"{ABSORBED}, and attend to the keys that the indexer chose, where transformers masks the others"
REFUSED = "PEFT refuses out_proj in this family, so all-linear has no number"
EVERY_EXPERT = "transformers runs every expert on every token; engines run the chosen ones"
POOLER = "transformers pools the first token beside the head, and nothing uses it"
MASKED = "transformers masks what lies behind the window; engines cut the cache there"
WIDE_TAPS = "transformers keeps these convolutions and their inputs in float32"
NARROW_STATE = "transformers keeps the recurrent state in bfloat16; engines keep it in float32"
WINDOWS = (
    "transformers keeps the inputs of windows that are not whole yet for as long as they last, here longer than the "
    "prompts that bytes are taken from; engines keep as many rows from the start"
)
POOLED = "transformers keeps the indexer's keys and weights of every token; engines keep one key for each pool"
NUMBERED = (
    "PEFT takes the names of a tower's projections, which are numbers, for those of its layers, and refuses all-linear"
)
GATES = (
    "the family counts the products of the two gates of its recurrence as part of the scan, which multiplies nothing"
)
CROSSED = "transformers mixes every sequence with the last tokens of all of them, so that work grows with their square"
NO_PICTURE = "without a picture nothing is kept for the layers that look at it"

_DECODE: dict[str, tuple[str, ...]] = {
    ABSORBED: (
        *("axk1", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_k25", "kimi_linear"),
        *("minicpm3", "mistral4", "sarvam_mla", "youtu"),
    ),
    CHOSEN: ("deepseek_v32", "glm5_next", "glm_moe_dsa", "hy_v4", "hy_v4_vl"),
    MASKED: ("gpt_neo",),
    CROSSED: ("rwkv",),
    EVERY_EXPERT: ("llama4_text", "nllb-moe"),
}
_PROMPT_LAST: dict[str, tuple[str, ...]] = {
    POOLER: ("big_bird",),
    EVERY_EXPERT: ("llama4_text",),
    GATES: ("recurrent_gemma",),
}
_PROMPT: dict[str, tuple[str, ...]] = {EVERY_EXPERT: ("nllb-moe",)}
_ALL_LINEAR: dict[str, tuple[str, ...]] = {
    REFUSED: ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"),
    NUMBERED: ("qwen3_omni_moe_thinker",),
}
_TOKEN: dict[str, tuple[str, ...]] = {WINDOWS: ("deepseek_v4",), POOLED: ("glm5_next",)}
_SEQUENCE: dict[str, tuple[str, ...]] = {
    WINDOWS: ("deepseek_v4",),
    POOLED: ("glm5_next",),
    WIDE_TAPS: ("inkling_text",),
    NARROW_STATE: ("minimax", "xlstm"),
}
_SOURCE: dict[str, tuple[str, ...]] = {NO_PICTURE: ("mllama",)}

BUILT = {
    "decode": _DECODE,
    "prompt_last": _PROMPT_LAST,
    "prompt": _PROMPT,
    "adapters all-linear": _ALL_LINEAR,
    "bytes of a token": _TOKEN,
    "bytes of a sequence": _SEQUENCE,
    "bytes of a source row": _SOURCE,
}
"""Of the hand-written families: the kind of number, the reason, and whose."""

EXPLAINED: dict[tuple[str, str, str], str] = {
    ("built", name, kind): reason
    for kind, reasons in BUILT.items()
    for reason, names in reasons.items()
    for name in names
} | {("built, text alone", "inkling_mm_model", "bytes of a sequence"): WIDE_TAPS}
"""By way, `model_type` and kind of number."""

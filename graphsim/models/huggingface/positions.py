"""The maximum context length of a config, with its rotary scaling applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.files.reading import Fields

_WHOLE = ("su", "longrope", "llama3")
"""Kinds of scaling for which max_position_embeddings is already the scaled length."""


def stretched(positions: int, fields: Fields) -> int:
    """`max_position_embeddings` times the rotary scaling factor; for YaRN, the original length times the factor.

    vLLM 0.33, `vllm/config/model.py`, the derived max_model_len; Gemma 3's is also the scaled length.
    """
    given = fields.raw("rope_parameters", fields.raw("rope_scaling"))
    if not positions or not isinstance(given, Mapping) or "gemma3" in str(fields.raw("model_type", "")):
        return positions
    nested = all(isinstance(entry, Mapping) for entry in given.values()) and bool(given)
    factor: Any = 1.0
    for scaling in given.values() if nested else (given,):
        kind = scaling.get("rope_type", scaling.get("type"))
        if kind in _WHOLE:
            continue
        factor = scaling.get("factor") or factor
        if kind == "yarn":
            original = scaling.get("original_max_position_embeddings")
            positions = original if isinstance(original, int) else positions
    known = isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 1e6
    return int(positions * factor) if known else positions

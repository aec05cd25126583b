"""Ranks in PEFT's files: one for all modules, others for some, and those after AdaLoRA's pruning."""

from __future__ import annotations

import re
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.variant import Variant


def read_ranks(fields: Fields, kind: Variant) -> dict[str, Any]:
    """The rank of a method under its name in the file, and ranks per module if the method supports these.

    A method without a rank gets rank 1, meaning that it is present. Problems are noted in `fields`.
    """
    rank = fields.integer(kind.rank_field, kind.rank_default, most=kind.most) if kind.rank_field else 1
    found: dict[str, Any] = {}
    if kind.pattern_field and fields.raw(kind.pattern_field) is not None:
        pattern = fields.mapping(kind.pattern_field, lenient=True)
        found = {key: pattern.integer(key, most=kind.most) for key in list(pattern.keys())}
    elif kind.peft_type == "ADALORA" and fields.raw("rank_pattern"):
        found = _kept(fields, rank)
    return {"rank": rank, "rank_pattern": found}


def _kept(fields: Fields, rank: Any) -> dict[str, Any]:
    """The remaining ranks of each matrix: a mask for each, by the path of its diagonal `lora_E`.

    PEFT 0.21, `tuners/adalora/model.py`, resize_modules_by_rank_pattern.
    """
    pattern = fields.mapping("rank_pattern", lenient=True)
    found: dict[str, int] = {}
    for key in list(pattern.keys()):
        mask = pattern.raw(key)
        if not (isinstance(mask, list) and mask and all(isinstance(one, bool) for one in mask) and len(mask) == rank):
            pattern.problem(key, f"is not allowed; expected a list of {rank} entries (init_r), each True or False")
            continue
        path = re.sub(r"^base_model\.model\.|\.lora_E(\.[^.]+)?$", "", key)
        found[re.escape(path)] = sum(mask)
    return found

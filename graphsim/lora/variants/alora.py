"""Activated LoRA: it acts only on the tokens after its invocation, as every generated token is. arXiv 2504.12397."""

from __future__ import annotations

import numpy as np

from graphsim.lora.variant import Described, Variant
from graphsim.units import Num


class _Activated(Variant):
    __slots__ = ()

    def adapted_tokens(self, lora: Described, new_tokens: Num, decode: bool) -> Num:
        """All that are generated, and of a prompt those after the invocation."""
        return new_tokens if decode else np.minimum(lora.invocation_tokens, new_tokens)


VARIANT = _Activated(
    name="alora",
    partial=True,
    pattern_field="rank_pattern",
    table="factors",
    unmerged="it acts only on the tokens after its invocation",
)

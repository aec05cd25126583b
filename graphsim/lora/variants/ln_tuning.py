"""LN tuning: norms, or whatever modules are named, are trained in full, as copies of the model's. arXiv
2312.11420.

A step runs the copy in place of the model's own module (PEFT 0.21, `tuners/ln_tuning/layer.py`), so it takes no
longer; merging replaces the module permanently.
"""

from __future__ import annotations

from typing import Any

from graphsim.lora.variant import Described, Shapes, Variant
from graphsim.ops import Embedding, Gemm
from graphsim.units import Num


class _Tuned(Variant):
    __slots__ = ()

    def tensors(self, op: Any, rank: Num, lora: Described) -> Shapes:
        """The module's own weights."""
        if isinstance(op, Gemm):
            return {"ln_tuning_layers": (op.n, op.k)} | ({"ln_tuning_layers.bias": (op.n,)} if op.bias else {})
        scale: Shapes = {"ln_tuning_layers": (op.width,)} if op.vectors else {}
        return scale | ({"ln_tuning_layers.bias": (op.width,)} if op.vectors > 1 else {})

    def table_tensors(self, op: Embedding, rank: Num, lora: Described) -> Shapes:
        """The whole table."""
        return {"ln_tuning_layers": (op.entries, op.width)}


VARIANT = _Tuned(
    name="ln-tuning", peft_type="LN_TUNING", rank_field="", scaled=False, bias=False, experts=False, copies=True,
    parts=(),
    table="factors",
)  # fmt: skip

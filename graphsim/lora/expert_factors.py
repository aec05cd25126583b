"""An adapter's factors on a stack of experts, in the layout of PEFT or of an engine."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from graphsim.lora.config import LoraConfig
from graphsim.lora.schemes import Scheme
from graphsim.ops import ExpertGemm, Gemm, LoraA, LoraAdd, LoraB, Sharding
from graphsim.ops.formats import FORMATS
from graphsim.ops.lora_experts import ExpertLoraA, ExpertLoraAdd, ExpertLoraB
from graphsim.units import Num


class ExpertFactors:
    """Creates the factors of one adapter.

    layout: layout of fused gate and up: `parameter`, `projections` or `fused`, as in an engine's profile
    """

    def __init__(self, lora: LoraConfig, scheme: Scheme, layout: str) -> None:
        self.lora, self.scheme, self.layout = lora, scheme, layout
        self.format, self.spread = FORMATS[lora.lora_dtype], lora.spread

    def of(self, op: ExpertGemm, rank: Num, reached: bool) -> tuple[LoraA, LoraB, LoraAdd]:
        """A factor pair of a given rank for each expert and slice; without rows if no adapter targets them."""
        adapted = self.lora.adapter_share * float(reached)
        rows = op.m * adapted
        slices = op.rank_factor if op.separate or self.layout == "projections" else 1
        a = ExpertLoraA(
            role=f"{op.role}.lora_a", m=rows, n=rank * slices, k=op.k, weights=self.format, activations=op.activations,
            adapters=self.lora.active_adapters, layer=op.layer, routing=op, adapted=adapted, spread=self.spread,
            slices=slices, sharded=self.layout != "parameter" and self._cuts_both(op),
        )  # fmt: skip
        shared = {f.name: getattr(a, f.name) for f in fields(a)}
        b = replace(ExpertLoraB(**shared), role=f"{op.role}.lora_b", n=op.n, k=rank)
        if self.lora.shared_outer_factors:
            inner = op.split is Sharding.ROW  # the GEMM back to the residual stream
            a, b = replace(a, common=not inner), replace(b, common=inner)
        joined = ExpertLoraAdd(
            role=f"{op.role}.lora_add", m=op.m, n=op.n, rows=rows * np.minimum(rank, 1.0), activations=op.activations,
            layer=op.layer, routing=op,
        )  # fmt: skip
        return a, b, joined

    def _cuts_both(self, op: Gemm) -> bool:
        """Whether the factor that other schemes replicate is sharded too: A over ranks, or B over outputs."""
        return (self.scheme.row_b if op.split is Sharding.ROW else self.scheme.column_a) is Sharding.COLUMN

"""DeLoRA: LoRA whose factors are normalised, with one trained strength. arXiv 2503.18225.

PEFT 0.21 (`tuners/delora/layer.py`): the input is scaled by the norms of W's columns, which are kept, and A's result
by the norms of the factors, which are computed in every forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphsim.lora.made import adapted_rows, built, live
from graphsim.lora.variant import Described, Shapes, Site, Variant
from graphsim.ops import Gemm, Op
from graphsim.ops.adapter_values import ColumnScale
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.lora_variants import VectorScale
from graphsim.units import Num


class _Decoupled(Variant):
    __slots__ = ()

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The scaled input, A, the norms and their scaling, B."""
        op, rank, rows = site.op, site.a.n, adapted_rows(site)
        factors = rank * (op.n + op.k)
        yield "lora_norms", HeldWeights(
            role=f"{op.role}.lora_norms", elems=op.k * live(site), frozen=True,
            stored_bytes=op.k * live(site) * op.activations.bytes, activations=op.activations, layer=op.layer,
        )  # fmt: skip
        yield "lora_scaled", ColumnScale(
            role=f"{op.role}.lora_scaled", m=rows, n=op.k, rows=rows, vectors=0.0, launches=live(site),
            activations=op.activations, layer=op.layer,
        )  # fmt: skip
        yield "lora_a", site.a
        yield "lora_strength", built(
            site, "lora_strength", held=live(site), elems=rank, launches=7.0, vector_flops=2.0 * factors,
            read_elems=factors, write_elems=5.0 * rank,
        )  # fmt: skip
        yield (
            "lora_d",
            VectorScale(
                role=f"{op.role}.lora_d", elems=site.a.m * rank, width=0.0, activations=op.activations, layer=op.layer
            ),
        )
        yield "lora_b", replace(site.b, bias=False)

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The factors, the strength, and the norms of W's columns."""
        norms: Shapes = {"delora_lambda": (1,), "delora_w_norm": (op.k,)}
        return {"delora_A": (rank, op.k), "delora_B": (op.n, rank)} | norms


VARIANT = _Decoupled(
    merges_few_bits=False,
    name="delora", peft_type="DELORA", pattern_field="rank_pattern", scaled=False, bias=False, experts=False,
    parts=("delora_A", "delora_B", "delora_lambda", "delora_w_norm"),
    conv1d=False, simpler="plain LoRA instead of DeLoRA",
)  # fmt: skip

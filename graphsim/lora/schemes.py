"""How an adapter's factors are sharded over a tensor-parallel group: one scheme per engine that has its own.

A column-parallel base leaves slices, a row-parallel one partial sums that an all-reduce completes. Schemes differ in
whether A is sharded over ranks (its result then gathered), and in where a row-parallel pair meets the base. The
sharding pass derives the collectives from these layouts. T tokens, rank r, N devices, h outputs:

    vllm, sglang-triton-v2, peft-dtensor   column A whole; row B whole, on partial sums; no collective of its own
    fully-sharded, s-lora                  column A gathered [T, r]; row A all-reduced [T, r], B's slices in place
    sglang, peft-megatron                  column A whole; row A all-reduced [T, r], B whole, after the base's own;
                                           sglang as sglang-triton-v2 in models that complete sums after their linears
    megatron                               column A gathered [T, r]; row A all-reduced [T, r], B gathered [T, h]

The output head is one more column-parallel base, except for vLLM, under both of its schemes: it keeps the head's pair
whole and adds its result to the gathered logits. The embedding's pair is whole everywhere, and added after the
all-reduce.

Sources: vLLM 0.33, `vllm/lora/layers` (default and --fully-sharded-loras), of the head `logits_processor.py`:
LogitsProcessorWithLoRA._get_logits; S-LoRA, arXiv 2311.03285, section 6, whose adapters reach no head; SGLang 0.5.23,
`lora/layers.py` (ParallelLMHeadWithLoRA cuts B over the vocabulary, VocabParallelEmbeddingWithLoRA nothing;
RowParallelLinearWithLoRA adds to partial sums where reduce_results is off), `lora/backend`; Megatron-Bridge,
`peft/utils.py`; PEFT 0.21, `tuners/lora/tp_layer.py` and `tuners/lora/layer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.ops import Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a factor pair is sharded.

    column_a: A of a column-parallel base: REPLICATED, or COLUMN: over ranks
    row_b: B of a row-parallel base: REPLICATED works on partial sums, WHOLE needs A's result reduced, COLUMN shards
        outputs
    row_in_place: whether a row-parallel pair adds to the base's partial sums, or after their all-reduce
    whole_head: whether every device has the output head's whole pair, added after logits are gathered
    deferred: the scheme for models whose layers, rather than linears, reduce partial sums; "" for the same one
    """

    column_a: Sharding = Sharding.REPLICATED
    row_b: Sharding = Sharding.REPLICATED
    row_in_place: bool = True
    whole_head: bool = False
    deferred: str = ""


_PARTIAL = Scheme()
_SHARDED = Scheme(column_a=Sharding.COLUMN, row_b=Sharding.COLUMN)
_REDUCED = Scheme(row_b=Sharding.WHOLE, row_in_place=False)
_GATHERED = Scheme(column_a=Sharding.COLUMN, row_b=Sharding.COLUMN, row_in_place=False)

SCHEMES = {
    "vllm": replace(_PARTIAL, whole_head=True),
    "fully-sharded": replace(_SHARDED, whole_head=True),
    "s-lora": _SHARDED,
    "sglang": replace(_REDUCED, deferred="sglang-triton-v2"),
    "sglang-triton-v2": _PARTIAL,
    "megatron": _GATHERED,
    "peft-megatron": _REDUCED,
    "peft-dtensor": _PARTIAL,
}
"""By the name that `LoraConfig.tp_scheme` and an engine profile's `tensor_parallel` take."""

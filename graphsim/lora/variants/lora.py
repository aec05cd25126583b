"""LoRA: y = W x + (alpha / r) B (A x). arXiv 2106.09685."""

from graphsim.lora.variant import Variant

VARIANT = Variant(name="lora", fused=True, pattern_field="rank_pattern", table="factors")

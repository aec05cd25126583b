"""rsLoRA: LoRA scaled by alpha / sqrt(r), which has the same operations. arXiv 2312.03732."""

from graphsim.lora.variant import Variant

VARIANT = Variant(name="rslora", fused=True, peft_flag="use_rslora", pattern_field="rank_pattern", table="factors")

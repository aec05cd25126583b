"""Facts on how a trainer runs a model that the backward pass depends on."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.errors import ConfigError, choices_text
from graphsim.ops.formats import FORMATS, Format
from graphsim.units import Num

RECOMPUTED = (
    "attention", "norm", "rope", "activation", "expert_activation", "elementwise", "linear", "second_linear", "experts",
)  # fmt: skip
"""Kinds of operations that selective recomputation may run again; `second_linear` is every second GEMM, beginning
with the second one (torchtitan, `distributed/activation_checkpoint.py`, save list of operations)."""

_CHOICES = {"recompute": ("none", "full", "selective"), "attention": ("flash", "unfused")}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardRules:
    """Facts about a trainer's code; see `graphsim.training.recipe` for their sources.

    adapter_format: format of LoRA's factors: a name of FORMATS, or `given` for the one in the graph
    autocast: whether GEMMs run in 16 bits regardless of their inputs' format
    lora_dropout: dropout probability of an adapter's input
    hidden_dropout: whether each sublayer's result has dropout
    attention_dropout: whether attention scores have dropout
    mask_bytes: bytes of a dropout mask per element (1 on CUDA)
    fused: which of `norm`, `rope`, `activation`, `lora`, `loss` are one kernel that saves only its inputs
    attention: `flash`, or `unfused` with scores in memory
    input_requires_grad: whether the embeddings' output requires a gradient even if nothing below it is trained
    recompute: `none`, `full`, `selective`
    recompute_every: recompute only every n-th layer (1 = all)
    recomputed: what selective recomputation recomputes, out of RECOMPUTED
    reentrant: whether checkpoints make a layer's input require a gradient, and recompute a layer to its end
    residual_bytes: bytes per element of the residual stream (4 in fp32)
    logit_bytes: bytes per logit that the loss saves until the head's backward pass
    entry: whether the input from an earlier pipeline stage requires a gradient, 0 or 1
    """

    adapter_format: str = "given"
    autocast: bool = False
    lora_dropout: Num = 0.0
    hidden_dropout: bool = False
    attention_dropout: bool = False
    mask_bytes: float = 1.0
    fused: tuple[str, ...] = ()
    attention: str = "flash"
    input_requires_grad: bool = False
    recompute: str = "none"
    recompute_every: int = 1
    recomputed: tuple[str, ...] = ("attention",)
    reentrant: bool = False
    residual_bytes: float = 2.0
    logit_bytes: float = 6.0
    entry: Num = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for a field that is not allowed."""
        for name, allowed in _CHOICES.items():
            if (found := getattr(self, name)) not in allowed:
                raise ConfigError(f"{name} = {found!r} is not known; {choices_text(found, allowed)}")
        for kind in self.recomputed:
            if kind not in RECOMPUTED:
                raise ConfigError(f"recomputed holds {kind!r}, which is not known; {choices_text(kind, RECOMPUTED)}")

    def factors(self, given: Format) -> Format:
        """The format of LoRA's factors."""
        return given if self.adapter_format == "given" else FORMATS[self.adapter_format]

    def products(self, factors: Format, base: Format) -> Format:
        """The format in which GEMMs with factors of a given format run; fused kernels dequantise nothing."""
        return base if self.autocast or "lora" in self.fused else factors

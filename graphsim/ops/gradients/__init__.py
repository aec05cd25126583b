"""The operations of a backward pass, one file per family of the operations whose gradients they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.lazy import names_from

if TYPE_CHECKING:
    from graphsim.ops.gradients.attention import AttentionBackward as AttentionBackward
    from graphsim.ops.gradients.doubled import AccumulatedGradient as AccumulatedGradient
    from graphsim.ops.gradients.doubled import DoubledBackward as DoubledBackward
    from graphsim.ops.gradients.doubled import KernelGradient as KernelGradient
    from graphsim.ops.gradients.elementwise import ActivationBackward as ActivationBackward
    from graphsim.ops.gradients.elementwise import AddGradients as AddGradients
    from graphsim.ops.gradients.elementwise import ElementwiseBackward as ElementwiseBackward
    from graphsim.ops.gradients.elementwise import RopeBackward as RopeBackward
    from graphsim.ops.gradients.experts import ExpertBiasGradient as ExpertBiasGradient
    from graphsim.ops.gradients.experts import ExpertFactorGradient as ExpertFactorGradient
    from graphsim.ops.gradients.experts import ExpertFactorInputGradient as ExpertFactorInputGradient
    from graphsim.ops.gradients.experts import ExpertInputGradient as ExpertInputGradient
    from graphsim.ops.gradients.experts import ExpertWeightGradient as ExpertWeightGradient
    from graphsim.ops.gradients.experts import RouteBackward as RouteBackward
    from graphsim.ops.gradients.experts import RowProducts as RowProducts
    from graphsim.ops.gradients.linear import HeadInputGradient as HeadInputGradient
    from graphsim.ops.gradients.linear import HeadWeightGradient as HeadWeightGradient
    from graphsim.ops.gradients.linear import InputGradient as InputGradient
    from graphsim.ops.gradients.linear import WeightGradient as WeightGradient
    from graphsim.ops.gradients.lora import LoraAddBackward as LoraAddBackward
    from graphsim.ops.gradients.lora import LoraInput as LoraInput
    from graphsim.ops.gradients.lora import LoraInputBackward as LoraInputBackward
    from graphsim.ops.gradients.loss import Loss as Loss
    from graphsim.ops.gradients.loss import LossBackward as LossBackward
    from graphsim.ops.gradients.scan import ConvBackward as ConvBackward
    from graphsim.ops.gradients.scan import ScanBackward as ScanBackward
    from graphsim.ops.gradients.tables import EmbeddingBackward as EmbeddingBackward
    from graphsim.ops.gradients.variants import BuiltWeightsBackward as BuiltWeightsBackward
    from graphsim.ops.gradients.variants import DoraScaleBackward as DoraScaleBackward
    from graphsim.ops.gradients.variants import RotationGradient as RotationGradient
    from graphsim.ops.gradients.variants import RotationInputGradient as RotationInputGradient
    from graphsim.ops.gradients.vectors import NormBackward as NormBackward
    from graphsim.ops.gradients.vectors import VectorGradient as VectorGradient

__getattr__, __dir__, __all__ = names_from(
    __name__,
    {
        "attention": ("AttentionBackward",),
        "doubled": (
            "AccumulatedGradient",
            "DoubledBackward",
            "KernelGradient",
        ),
        "elementwise": (
            "ActivationBackward",
            "AddGradients",
            "ElementwiseBackward",
            "RopeBackward",
        ),
        "experts": (
            "ExpertBiasGradient",
            "ExpertFactorGradient",
            "ExpertFactorInputGradient",
            "ExpertInputGradient",
            "ExpertWeightGradient",
            "RouteBackward",
            "RowProducts",
        ),
        "linear": (
            "HeadInputGradient",
            "HeadWeightGradient",
            "InputGradient",
            "WeightGradient",
        ),
        "lora": (
            "LoraAddBackward",
            "LoraInput",
            "LoraInputBackward",
        ),
        "loss": (
            "Loss",
            "LossBackward",
        ),
        "scan": (
            "ConvBackward",
            "ScanBackward",
        ),
        "tables": ("EmbeddingBackward",),
        "variants": (
            "BuiltWeightsBackward",
            "DoraScaleBackward",
            "RotationGradient",
            "RotationInputGradient",
        ),
        "vectors": (
            "NormBackward",
            "VectorGradient",
        ),
    },
)

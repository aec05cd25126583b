"""The operations of a backward pass, one file per family of the operations whose gradients they compute."""

from graphsim.ops.gradients.attention import AttentionBackward
from graphsim.ops.gradients.doubled import AccumulatedGradient, DoubledBackward, KernelGradient
from graphsim.ops.gradients.elementwise import ActivationBackward, AddGradients, ElementwiseBackward, RopeBackward
from graphsim.ops.gradients.experts import (
    ExpertBiasGradient,
    ExpertFactorGradient,
    ExpertFactorInputGradient,
    ExpertInputGradient,
    ExpertWeightGradient,
    RouteBackward,
    RowProducts,
)
from graphsim.ops.gradients.linear import HeadInputGradient, HeadWeightGradient, InputGradient, WeightGradient
from graphsim.ops.gradients.lora import LoraAddBackward, LoraInput, LoraInputBackward
from graphsim.ops.gradients.loss import Loss, LossBackward
from graphsim.ops.gradients.scan import ConvBackward, ScanBackward
from graphsim.ops.gradients.tables import EmbeddingBackward
from graphsim.ops.gradients.variants import (
    BuiltWeightsBackward,
    DoraScaleBackward,
    RotationGradient,
    RotationInputGradient,
)
from graphsim.ops.gradients.vectors import NormBackward, VectorGradient

__all__ = [
    "RowProducts",
    "RouteBackward",
    "ExpertWeightGradient",
    "ExpertInputGradient",
    "ExpertFactorInputGradient",
    "ExpertBiasGradient",
    "ExpertFactorGradient",
    "ScanBackward",
    "ConvBackward",
    "AccumulatedGradient",
    "DoubledBackward",
    "KernelGradient",
    "ActivationBackward",
    "AddGradients",
    "AttentionBackward",
    "BuiltWeightsBackward",
    "DoraScaleBackward",
    "RotationGradient",
    "RotationInputGradient",
    "ElementwiseBackward",
    "EmbeddingBackward",
    "HeadInputGradient",
    "HeadWeightGradient",
    "InputGradient",
    "LoraAddBackward",
    "LoraInput",
    "LoraInputBackward",
    "Loss",
    "LossBackward",
    "NormBackward",
    "RopeBackward",
    "VectorGradient",
    "WeightGradient",
]

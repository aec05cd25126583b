"""The operations a graph is made of, one file per kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.lazy import names_from

if TYPE_CHECKING:
    from graphsim.ops.attention import Attention as Attention
    from graphsim.ops.attention import KvCache as KvCache
    from graphsim.ops.attention import MlaAttention as MlaAttention
    from graphsim.ops.base import COMPUTE as COMPUTE
    from graphsim.ops.base import COPY as COPY
    from graphsim.ops.base import HOST as HOST
    from graphsim.ops.base import NETWORK as NETWORK
    from graphsim.ops.base import Op as Op
    from graphsim.ops.base import OpType as OpType
    from graphsim.ops.base import Residency as Residency
    from graphsim.ops.base import Sharding as Sharding
    from graphsim.ops.base import Work as Work
    from graphsim.ops.classes import op_classes as op_classes
    from graphsim.ops.collectives import AllGather as AllGather
    from graphsim.ops.collectives import AllReduce as AllReduce
    from graphsim.ops.collectives import AllToAll as AllToAll
    from graphsim.ops.collectives import Collective as Collective
    from graphsim.ops.collectives import ReduceScatter as ReduceScatter
    from graphsim.ops.collectives import RingPass as RingPass
    from graphsim.ops.collectives import SendReceive as SendReceive
    from graphsim.ops.compression import PoolWindows as PoolWindows
    from graphsim.ops.custom import Compute as Compute
    from graphsim.ops.depth import AddToSum as AddToSum
    from graphsim.ops.depth import MixSums as MixSums
    from graphsim.ops.depth import StartSums as StartSums
    from graphsim.ops.direction import Direction as Direction
    from graphsim.ops.dispatch import ExchangeTokens as ExchangeTokens
    from graphsim.ops.dispatch import GatherTokens as GatherTokens
    from graphsim.ops.dispatch import ScatterTokens as ScatterTokens
    from graphsim.ops.elementwise import Activation as Activation
    from graphsim.ops.elementwise import Add as Add
    from graphsim.ops.elementwise import Concatenate as Concatenate
    from graphsim.ops.elementwise import Elementwise as Elementwise
    from graphsim.ops.elementwise import Rope as Rope
    from graphsim.ops.elementwise import Sample as Sample
    from graphsim.ops.elementwise import TakeRows as TakeRows
    from graphsim.ops.experts import ExpertActivation as ExpertActivation
    from graphsim.ops.experts import ExpertGemm as ExpertGemm
    from graphsim.ops.experts import Permute as Permute
    from graphsim.ops.experts import Route as Route
    from graphsim.ops.experts import expected_experts as expected_experts
    from graphsim.ops.fused_norms import AddNorm as AddNorm
    from graphsim.ops.gradients import ActivationBackward as ActivationBackward
    from graphsim.ops.gradients import AddGradients as AddGradients
    from graphsim.ops.gradients import AttentionBackward as AttentionBackward
    from graphsim.ops.gradients import BuiltWeightsBackward as BuiltWeightsBackward
    from graphsim.ops.gradients import DoraScaleBackward as DoraScaleBackward
    from graphsim.ops.gradients import ElementwiseBackward as ElementwiseBackward
    from graphsim.ops.gradients import EmbeddingBackward as EmbeddingBackward
    from graphsim.ops.gradients import HeadInputGradient as HeadInputGradient
    from graphsim.ops.gradients import HeadWeightGradient as HeadWeightGradient
    from graphsim.ops.gradients import InputGradient as InputGradient
    from graphsim.ops.gradients import LoraAddBackward as LoraAddBackward
    from graphsim.ops.gradients import LoraInput as LoraInput
    from graphsim.ops.gradients import LoraInputBackward as LoraInputBackward
    from graphsim.ops.gradients import Loss as Loss
    from graphsim.ops.gradients import LossBackward as LossBackward
    from graphsim.ops.gradients import NormBackward as NormBackward
    from graphsim.ops.gradients import RopeBackward as RopeBackward
    from graphsim.ops.gradients import RotationGradient as RotationGradient
    from graphsim.ops.gradients import RotationInputGradient as RotationInputGradient
    from graphsim.ops.gradients import VectorGradient as VectorGradient
    from graphsim.ops.gradients import WeightGradient as WeightGradient
    from graphsim.ops.grouped import GroupedGemm as GroupedGemm
    from graphsim.ops.handed import Handed as Handed
    from graphsim.ops.joins import Join as Join
    from graphsim.ops.joins import Slice as Slice
    from graphsim.ops.joins import SomeRows as SomeRows
    from graphsim.ops.kept import KeptValue as KeptValue
    from graphsim.ops.kept import KeptWeights as KeptWeights
    from graphsim.ops.launch import Launch as Launch
    from graphsim.ops.linear import Embedding as Embedding
    from graphsim.ops.linear import Gemm as Gemm
    from graphsim.ops.linear import HeadGemm as HeadGemm
    from graphsim.ops.linear import Part as Part
    from graphsim.ops.lora import LoraA as LoraA
    from graphsim.ops.lora import LoraAdd as LoraAdd
    from graphsim.ops.lora import LoraB as LoraB
    from graphsim.ops.lora import LoraGemm as LoraGemm
    from graphsim.ops.lora import LoraMerge as LoraMerge
    from graphsim.ops.media import Conv2d as Conv2d
    from graphsim.ops.media import DepthwiseConv as DepthwiseConv
    from graphsim.ops.media import Patches as Patches
    from graphsim.ops.media import PlaceRows as PlaceRows
    from graphsim.ops.media import Pool as Pool
    from graphsim.ops.modules import ModuleNorm as ModuleNorm
    from graphsim.ops.modules import ModuleScale as ModuleScale
    from graphsim.ops.modules import ModuleSteps as ModuleSteps
    from graphsim.ops.norms import Norm as Norm
    from graphsim.ops.norms import SquareSum as SquareSum
    from graphsim.ops.outside import EncoderOutput as EncoderOutput
    from graphsim.ops.outside import OutsideValue as OutsideValue
    from graphsim.ops.pipeline_stage import PipelineStage as PipelineStage
    from graphsim.ops.reduced_norms import AllReduceNorm as AllReduceNorm
    from graphsim.ops.saved import Saved as Saved
    from graphsim.ops.scan import CausalConv as CausalConv
    from graphsim.ops.scan import Scan as Scan
    from graphsim.ops.sparse import IndexScores as IndexScores
    from graphsim.ops.sparse import SparseAttention as SparseAttention
    from graphsim.ops.streams import AddToStreams as AddToStreams
    from graphsim.ops.streams import CollapseStreams as CollapseStreams
    from graphsim.ops.streams import CorrectStreams as CorrectStreams
    from graphsim.ops.streams import ExpandStreams as ExpandStreams
    from graphsim.ops.streams import PredictStreams as PredictStreams
    from graphsim.ops.streams import SplitStreams as SplitStreams
    from graphsim.ops.structure import Input as Input
    from graphsim.ops.structure import Repeat as Repeat
    from graphsim.ops.together import Together as Together

__getattr__, __dir__, __all__ = names_from(
    __name__,
    {
        "attention": (
            "Attention",
            "KvCache",
            "MlaAttention",
        ),
        "base": (
            "COMPUTE",
            "COPY",
            "HOST",
            "NETWORK",
            "Op",
            "OpType",
            "Residency",
            "Sharding",
            "Work",
        ),
        "classes": ("op_classes",),
        "collectives": (
            "AllGather",
            "AllReduce",
            "AllToAll",
            "Collective",
            "ReduceScatter",
            "RingPass",
            "SendReceive",
        ),
        "compression": ("PoolWindows",),
        "custom": ("Compute",),
        "depth": (
            "AddToSum",
            "MixSums",
            "StartSums",
        ),
        "direction": ("Direction",),
        "dispatch": (
            "ExchangeTokens",
            "GatherTokens",
            "ScatterTokens",
        ),
        "elementwise": (
            "Activation",
            "Add",
            "Concatenate",
            "Elementwise",
            "Rope",
            "Sample",
            "TakeRows",
        ),
        "experts": (
            "ExpertActivation",
            "ExpertGemm",
            "Permute",
            "Route",
            "expected_experts",
        ),
        "fused_norms": ("AddNorm",),
        "gradients": (
            "ActivationBackward",
            "AddGradients",
            "AttentionBackward",
            "BuiltWeightsBackward",
            "DoraScaleBackward",
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
            "RotationGradient",
            "RotationInputGradient",
            "VectorGradient",
            "WeightGradient",
        ),
        "grouped": ("GroupedGemm",),
        "handed": ("Handed",),
        "joins": (
            "Join",
            "Slice",
            "SomeRows",
        ),
        "kept": (
            "KeptValue",
            "KeptWeights",
        ),
        "launch": ("Launch",),
        "linear": (
            "Embedding",
            "Gemm",
            "HeadGemm",
            "Part",
        ),
        "lora": (
            "LoraA",
            "LoraAdd",
            "LoraB",
            "LoraGemm",
            "LoraMerge",
        ),
        "media": (
            "Conv2d",
            "DepthwiseConv",
            "Patches",
            "PlaceRows",
            "Pool",
        ),
        "modules": (
            "ModuleNorm",
            "ModuleScale",
            "ModuleSteps",
        ),
        "norms": (
            "Norm",
            "SquareSum",
        ),
        "outside": (
            "EncoderOutput",
            "OutsideValue",
        ),
        "pipeline_stage": ("PipelineStage",),
        "reduced_norms": ("AllReduceNorm",),
        "saved": ("Saved",),
        "scan": (
            "CausalConv",
            "Scan",
        ),
        "sparse": (
            "IndexScores",
            "SparseAttention",
        ),
        "streams": (
            "AddToStreams",
            "CollapseStreams",
            "CorrectStreams",
            "ExpandStreams",
            "PredictStreams",
            "SplitStreams",
        ),
        "structure": (
            "Input",
            "Repeat",
        ),
        "together": ("Together",),
    },
)

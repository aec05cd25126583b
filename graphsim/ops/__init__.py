"""The operations a graph is made of, one file per kind."""

from graphsim.ops.attention import Attention, KvCache, MlaAttention
from graphsim.ops.base import COMPUTE, COPY, HOST, NETWORK, Op, OpType, PipelineStage, Residency, Sharding, Work
from graphsim.ops.classes import op_classes
from graphsim.ops.collectives import AllGather, AllReduce, AllToAll, Collective, ReduceScatter, SendReceive
from graphsim.ops.compression import PoolWindows
from graphsim.ops.custom import Compute
from graphsim.ops.depth import AddToSum, MixSums, StartSums
from graphsim.ops.dispatch import ExchangeTokens, GatherTokens, ScatterTokens
from graphsim.ops.elementwise import Activation, Add, Concatenate, Elementwise, Rope, Sample, TakeRows
from graphsim.ops.experts import ExpertActivation, ExpertGemm, Permute, Route, expected_experts
from graphsim.ops.fused_norms import AddNorm, AllReduceNorm
from graphsim.ops.grouped import GroupedGemm
from graphsim.ops.handed import Handed
from graphsim.ops.linear import Embedding, Gemm, HeadGemm, Part
from graphsim.ops.lora import LoraA, LoraAdd, LoraB, LoraGemm, LoraMerge
from graphsim.ops.media import Conv2d, DepthwiseConv, Patches, PlaceRows, Pool
from graphsim.ops.modules import ModuleNorm, ModuleScale, ModuleSteps
from graphsim.ops.norms import Norm, SquareSum
from graphsim.ops.saved import Saved
from graphsim.ops.scan import CausalConv, Scan
from graphsim.ops.sparse import IndexScores, SparseAttention
from graphsim.ops.streams import (
    AddToStreams,
    CollapseStreams,
    CorrectStreams,
    ExpandStreams,
    PredictStreams,
    SplitStreams,
)
from graphsim.ops.structure import (
    EncoderOutput,
    Input,
    Join,
    Launch,
    OutsideValue,
    Repeat,
    Slice,
    SomeRows,
    Together,
)

__all__ = [
    "Activation",
    "Add",
    "AddNorm",
    "AddToStreams",
    "AddToSum",
    "AllGather",
    "AllReduce",
    "AllReduceNorm",
    "AllToAll",
    "Attention",
    "COMPUTE",
    "COPY",
    "CausalConv",
    "CollapseStreams",
    "Collective",
    "Compute",
    "CorrectStreams",
    "Conv2d",
    "DepthwiseConv",
    "Elementwise",
    "Concatenate",
    "Embedding",
    "EncoderOutput",
    "ExchangeTokens",
    "ExpandStreams",
    "ExpertActivation",
    "ExpertGemm",
    "Gemm",
    "GroupedGemm",
    "HOST",
    "Handed",
    "HeadGemm",
    "IndexScores",
    "Input",
    "Join",
    "KvCache",
    "Launch",
    "LoraA",
    "LoraAdd",
    "LoraB",
    "LoraGemm",
    "LoraMerge",
    "MixSums",
    "MlaAttention",
    "ModuleNorm",
    "ModuleScale",
    "ModuleSteps",
    "NETWORK",
    "Norm",
    "Op",
    "OpType",
    "OutsideValue",
    "Part",
    "Patches",
    "GatherTokens",
    "Permute",
    "ReduceScatter",
    "Repeat",
    "Residency",
    "Rope",
    "Route",
    "Sample",
    "Saved",
    "Scan",
    "SendReceive",
    "Sharding",
    "Slice",
    "SomeRows",
    "SparseAttention",
    "SplitStreams",
    "SquareSum",
    "PipelineStage",
    "PlaceRows",
    "Pool",
    "PoolWindows",
    "PredictStreams",
    "StartSums",
    "TakeRows",
    "Together",
    "Work",
    "ScatterTokens",
    "expected_experts",
    "op_classes",
]

"""What a node of the graph is: a frozen operation with named dimensions and the work it demands.

An op is independent of the hardware. Its dimensions are numbers, or arrays over scenarios; formulas use
arithmetic and numpy's elementwise functions only, so one path serves one scenario or a million.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import Any, ClassVar

from graphsim.brief import figures_text, settings_text
from graphsim.ops.direction import Direction
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.pipeline_stage import PipelineStage
from graphsim.ops.saved import Saved
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

COMPUTE, NETWORK, COPY, HOST, SIDE = "compute", "network", "copy", "host", "side"
"""Streams: operations on the same stream never run at the same time. SIDE is a second one for kernels."""

BF16 = FORMATS["bf16"]


class OpType(IntEnum):
    """Kinds of operations; 18 to 21 are the numbers of the LoRA document.

    An engine's kernel has the type of what it computes: a shrink is a GEMM_LORA_A, an expand is a GEMM_LORA_B that
    includes its ADD. LORA_KERNEL is for kernels without a type in the document.
    """

    INPUT = 0
    EMBEDDING = 1
    GEMM = 2
    ATTENTION = 3
    NORM = 4
    ROPE = 5
    ACTIVATION = 6
    ELEMENTWISE = 7
    KV_CACHE = 8
    SCAN = 9
    CONVOLUTION = 10
    ROUTER = 11
    EXPERTS = 12
    SAMPLE = 13
    COLLECTIVE = 14
    COPY = 15
    LAUNCH = 16
    REPEAT = 17
    LORA_MERGE = 18
    GEMM_LORA_A = 19
    GEMM_LORA_B = 20
    ADD = 21
    LORA_KERNEL = 22
    QUANTISE = 23
    TOGETHER = 24


class AdapterPart(Enum):
    """The purpose of an adapter's operation; the values are the names that advice uses."""

    FACTOR = "factors"
    ADDITION = "additions"
    NORM = "weight norms"
    COLLECTIVE = "collectives"


class Residency(Enum):
    """Where an operation's weights, inputs and results lie; the names are the LoRA document's.

    All_offchip: in the device's memory, which they are read from and written to. All_onchip: in its last-level cache,
    as far as they fit.
    """

    All_offchip = "All_offchip"
    All_onchip = "All_onchip"


class Sharding(Enum):
    """How an op treats values that are sharded over devices.

    LINEAR carries any layout on, LOCAL works on its own part, WHOLE needs the full value,
    COLUMN and ROW cut their weights, REPLICATED keeps a copy, VOCAB cuts a table and yields partial sums.
    Among experts, DEAL_OUT gives each device the rows of its experts, DEALT works on them, COLLECT yields a partial
    sum of them; TOKENS works on the device's own tokens.
    """

    LINEAR = "linear"
    LOCAL = "local"
    WHOLE = "whole"
    COLUMN = "column"
    ROW = "row"
    VOCAB = "vocab"
    REPLICATED = "replicated"
    DEAL_OUT = "deal out"
    DEALT = "dealt"
    COLLECT = "collect"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What an operation requires of a device, independent of the device's speed.

    flops: on matrix units; a multiply-add counts as 2
    vector_flops: on vector units; one per element and elementary step
    weight_bytes, input_bytes: bytes read from memory
    write_bytes: bytes written to it
    message_bytes: bytes sent by each device
    message_hops: latency-bound steps on the interconnect
    host_bytes: bytes moved over the host link
    """

    flops: Num = 0.0
    vector_flops: Num = 0.0
    weight_bytes: Num = 0.0
    input_bytes: Num = 0.0
    write_bytes: Num = 0.0
    message_bytes: Num = 0.0
    message_hops: Num = 0.0
    host_bytes: Num = 0.0

    def __repr__(self) -> str:
        figures = {field.name: getattr(self, field.name) for field in fields(self)}
        return figures_text("Work", {name: value for name, value in figures.items() if may_be_nonzero(value)})

    @property
    def read_bytes(self) -> Num:
        """Weights and inputs read from device memory."""
        return self.weight_bytes + self.input_bytes

    @property
    def memory_bytes(self) -> Num:
        """All device memory traffic in bytes."""
        return self.weight_bytes + self.input_bytes + self.write_bytes

    def __add__(self, other: Work) -> Work:
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, times: Num) -> Work:
        return Work(**{f.name: getattr(self, f.name) * times for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Op:
    """One operation. Passes make a new one with `dataclasses.replace`.

    role: what it is for, such as `q_proj`; of an adapter's operation also which part it is, such as `q_proj.lora_a`
    stream: operations of one stream run one after another
    once: one-time work, which is not part of a steady-state step
    activations: number format of inputs and results
    layer: which layer of a repeat's body it belongs to
    adapter: whether it belongs to an adapter; without an adapter the graph has no such node
    residency: where its operands lie; a pass that changes it changes the price
    stage: of a pipeline with several; None without a pipeline
    direction: the part of a training step in which it runs
    trained: share of its own weights that training changes, 0 or 1
    """

    op_type: ClassVar[OpType] = OpType.INPUT
    sharding: ClassVar[Sharding] = Sharding.LOCAL
    family: ClassVar[str] = ""
    """The cost family that prices it on measured devices; "" if it was not measured. `moe` is the experts' GEMMs,
    whose price is that of their whole block, and the other operations in that block: the library's own."""
    launched: ClassVar[bool] = True
    """Whether it is a kernel that has to be launched."""
    host_waits: ClassVar[bool] = False
    """Whether the host reads its result before it launches the operations that use it."""
    constant: ClassVar[bool] = False
    """Whether its result depends only on weights and is used in place, so that no value flows."""
    ends: ClassVar[bool] = False
    """Whether its result stays in place, as the gradient of weights does: it needs no consumer."""
    follows: ClassVar[bool] = False
    """Whether it is sharded as its inputs are."""
    joins_base: ClassVar[bool] = False
    """Whether its result is the base's with an adapter's added: what moves it does not belong to the adapter."""
    tiled: ClassVar[bool] = False
    """Whether it runs over tiles whose clocks are known (`LoraKernel`)."""
    adapter_part: ClassVar[AdapterPart] = AdapterPart.FACTOR
    """Its purpose, if it belongs to an adapter."""

    def __init_subclass__(cls) -> None:
        """Every kind of operation shows only the fields that differ from their defaults."""
        cls.__repr__ = Op.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return settings_text(self)

    role: str = ""
    stream: str = COMPUTE
    once: bool = False
    activations: Format = BF16
    layer: int = 0
    adapter: bool = False
    residency: Residency = Residency.All_offchip
    stage: PipelineStage | None = None
    direction: Direction = Direction.FORWARD
    trained: Num = 0.0

    def work(self) -> Work:
        """The work that the operation requires of a device."""
        return Work()

    @property
    def placement(self) -> Sharding:
        """How this operation treats sharded values."""
        return self.sharding

    @property
    def parameters(self) -> Num:
        """Weights that the operation owns, in elements, per device."""
        return 0.0

    @property
    def trainable_parameters(self) -> Num:
        """Weights that training the adapter changes, in elements, per device; the base model's are frozen."""
        return self.parameters if self.adapter else 0.0

    @property
    def weight_storage_bytes(self) -> Num:
        """Memory that its weights occupy, per device."""
        return self.parameters * self.activations.bytes

    @property
    def adapter_rank(self) -> Num:
        """Rank of the adapter whose weights it holds, summed over the slices that share them; 0 where it has none."""
        return 0.0

    @property
    def buffers(self) -> tuple[Num, ...]:
        """Elements of each tensor that holds one adapter's weights; none where it holds no adapter's weights."""
        return ()

    @property
    def idle(self) -> bool:
        """Whether it has no rows in any scenario, so that its weights are in memory but no kernel runs.

        An operation that states neither its rows nor its inputs is never idle.
        """
        rows = self.in_elems if self.out_rows is None else self.out_rows
        return rows is not None and not may_be_nonzero(rows)

    @property
    def launches(self) -> Num:
        """Number of kernels that are launched for it."""
        return 1.0 if self.launched else 0.0

    @property
    def core_clocks(self) -> Num:
        """Clock cycles of one core that its instructions take, where neither flops nor bytes determine their time."""
        return 0.0

    @property
    def saved(self) -> Saved:
        """What autograd keeps to compute the gradients of its inputs: its inputs, as nonlinear functions do."""
        elems = self.out_elems if self.in_elems is None else self.in_elems
        return Saved(inputs=elems * self.activations.bytes)

    @property
    def saved_for_weights(self) -> Saved:
        """What autograd keeps in addition if the operation's own weights are trained."""
        return Saved()

    @property
    def state_bytes(self) -> Num:
        """Memory that outlives the step: KV cache or recurrent state, per device."""
        return 0.0

    @property
    def lasting_bytes(self) -> Num:
        """Bytes, read or written, that were there before the step: weights, caches and states."""
        return self.work().weight_bytes

    @property
    def out_elems(self) -> Num:
        """Elements of the result; the bytes are `out_elems * activations.bytes`."""
        raise NotImplementedError

    @property
    def out_rows(self) -> Num | None:
        """Rows of the result; None where the operation knows only how many elements it has."""
        return None

    @property
    def is_view(self) -> Any:
        """Whether the result is a view of its only input, without memory of its own; per scenario."""
        return False

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of the named parts of the result, where consumers may take a part of it."""
        return {}

    @property
    def in_elems(self) -> Num | None:
        """Elements expected from all inputs together; None where any size will do."""
        return None

    def cut(self, ways: Num) -> Op:
        """The share of one of `ways` devices when the op works on a sharded value."""
        raise NotImplementedError(f"{type(self).__name__} does not define how it is sharded")

    def cut_tokens(self, ways: Num) -> Op:
        """The share of one of `ways` devices when the op works on a value that is sharded over tokens."""
        return self.cut(ways)

    def exchanges(self, ways: Num) -> tuple[Op | None, Op | None]:
        """Collectives before and after an operation on weights that `ways` devices share; None for none."""
        return None, None

    @property
    def serves(self) -> tuple[str, str]:
        """The role of the base operation that an adapter's operation belongs to, and its part of the adapter."""
        base, _, part = self.role.rpartition(".")
        return base, part

    def dims(self) -> dict[str, Num]:
        """The numeric fields by name, for tables and pictures."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if is_number(value) and name not in _NO_SIZES}


_NO_SIZES = ("layer", "trained", "stride")
"""Numeric fields that are no dimension of an operation."""


def is_number(value: Any) -> bool:
    """True for a number or an array, false for flags and everything else."""
    return not isinstance(value, bool | str) and (isinstance(value, int | float) or hasattr(value, "dtype"))

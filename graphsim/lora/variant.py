"""The definition of a variant of LoRA; the plain adapter needs only a name.

A variant is a file of `graphsim/lora/variants`, whose `VARIANT` is a `Variant`, or a subclass with its own steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from graphsim.errors import ConfigError
from graphsim.graph import Step, Value
from graphsim.lora.matching import MAX_RANK
from graphsim.lora.options import Option
from graphsim.ops import Embedding, Gemm, LoraA, LoraAdd, LoraB, LoraGemm, LoraMerge, Op, Part, Sharding
from graphsim.ops.base import BF16
from graphsim.ops.formats import Format
from graphsim.ops.lora_experts import ExpertLoraGemm
from graphsim.ops.overrides import OverriddenGemm, OverrideResult, OverridingGemm, Remade
from graphsim.units import Num

Shapes = dict[str, tuple[Num, ...]]

OVERRIDE, OVERRIDDEN = "lora_override", "lora_overridden"
"""The GEMM that replaces a linear, and the node for the result of both."""

FUSED = ("lora_a", "lora_b")
"""The parts of a chain that fused kernels run as a shrink and an expand."""


class Described(Protocol):
    """The fields of a `LoraConfig` that variants read, under the same names."""

    @property
    def strategy(self) -> str:
        """`dynamic` or `merge`."""

    @property
    def variant(self) -> str:
        """Its name."""

    @property
    def rank(self) -> Num:
        """Rank of the factors."""

    @property
    def rank_pattern(self) -> Mapping[str, Num]:
        """Other ranks for some modules."""

    @property
    def active_adapters(self) -> Num:
        """Distinct adapters of a step."""

    @property
    def adapter_share(self) -> Num:
        """Part of the tokens that have one."""

    @property
    def lora_dtype(self) -> str:
        """Format of the factors."""

    @property
    def group_size(self) -> Num:
        """Inputs that QA-LoRA pools."""

    @property
    def blocks(self) -> Num:
        """Blocks of BD-LoRA's block-diagonal factor."""

    @property
    def blocks_a(self) -> Sequence[str] | None:
        """Parts of the names of modules whose A is block-diagonal."""

    @property
    def blocks_b(self) -> Sequence[str] | None:
        """The same of B."""

    @property
    def blocks_strict(self) -> bool:
        """Whether it has to be one of the two."""

    @property
    def invocation_tokens(self) -> Num:
        """Prompt tokens after aLoRA's invocation."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The variant's own options."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """A linear with an adapter, and the plain adapter's operations for it.

    name, op, inputs: those of the linear's node; a, b, joined: the two factors, and the ADD after them
    """

    name: str
    op: Gemm
    inputs: list[Value]
    a: LoraA
    b: LoraB
    joined: LoraAdd
    lora: Described

    @property
    def present(self) -> Num:
        """1 if any row has an adapter, else 0."""
        return np.greater(self.a.m * self.a.n * self.lora.active_adapters, 0.0)[()] * 1.0

    def between(self, part: str) -> LoraGemm:
        """An r x r matrix of each adapter, applied to A's result; on experts, of each expert."""
        kind = ExpertLoraGemm if isinstance(self.a, ExpertLoraGemm) else LoraGemm
        square = kind(**{f.name: getattr(self.a, f.name) for f in fields(kind)})
        return replace(square, role=f"{self.op.role}.{part}", k=self.a.n, split=Sharding.REPLICATED, units=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant of LoRA.

    name: the name for `LoraConfig.variant`
    fused: whether the fused kernels of serving engines run it; engines refuse the others at load time (vLLM,
        `vllm/lora/peft_helper.py`)
    unmerged: why it can only be applied dynamically, as errors and advice state it; "" if it can be merged
    few_bits: whether it supports weights of fewer than 16 bits; merges_few_bits: whether it can be merged into them
    merge_passes: how often a merge reads or writes a 16-bit temporary of the weight's shape, beyond a plain merge
    exact_merge: whether a merge into a quantised base needs no further rounding
    partial: whether it applies to only a part of a step's tokens, given by `adapted_tokens`
    scaled: whether alpha / r multiplies the chain's result; engines that run module by module have a kernel for it
    bias: whether PEFT allows a bias in the second factor
    peft_flag: the flag in PEFT's `adapter_config.json` that selects it; peft_type: its method there
    rank_field, rank_default: the name of its rank there, "" if it has none, and the default
    pattern_field: the name of its ranks per module there, "" if it has none; most: the largest rank
    options: further settings, under PEFT's names
    experts: whether it supports a stack of experts; conv1d: whether it supports GPT-2's transposed linears
    table: how it applies to the token embedding: as `factors`, or as a `rotation` of the result; "" for never
    parts: parts of tensor names that only its files have
    copies: whether it trains whole modules of any kind, such as norms, in place of the model's own
    simpler: the advice for going back to the plain adapter; "" for none
    """

    name: str
    fused: bool = False
    unmerged: str = ""
    few_bits: bool = True
    merges_few_bits: bool = True
    merge_passes: float = 0.0
    exact_merge: bool = False
    partial: bool = False
    scaled: bool = True
    bias: bool = True
    peft_flag: str = ""
    peft_type: str = "LORA"
    rank_field: str = "r"
    rank_default: int = 8
    pattern_field: str = ""
    most: int = MAX_RANK
    options: tuple[Option, ...] = ()
    experts: bool = True
    conv1d: bool = True
    table: str = ""
    parts: tuple[str, ...] = ("lora_A", "lora_B")
    copies: bool = False
    simpler: str = ""

    def check(self, lora: Described) -> None:
        """Raise ConfigError, naming field, value and what is allowed, for an adapter that it does not support."""
        if lora.strategy == "merge" and self.unmerged:
            raise ConfigError(
                f"lora.strategy = 'merge' is not allowed with variant '{self.name}', since {self.unmerged}; "
                "allowed: dynamic"
            )

    def unmergeable(self, formats: Iterable[Format]) -> str:
        """Why it cannot be merged into weights of these formats; "" if it can."""
        narrow = sorted({f.name for f in formats if f.bytes < BF16.bytes})
        if self.unmerged or self.merges_few_bits or not narrow:
            return self.unmerged
        return f"PEFT 0.21 merges it into no weights of fewer than 16 bits, such as {', '.join(narrow)}"

    def require_format(self, op: Gemm, strategy: str) -> None:
        """Raise ConfigError, naming module and format, for a linear that it does not support or cannot be merged
        into.
        """
        if strategy == "merge" and (why := self.unmergeable([op.weights])):
            raise ConfigError(
                f"lora.strategy = 'merge' is not allowed with variant '{self.name}' on '{op.role}', since {why}; "
                "allowed: dynamic"
            )
        if not self.few_bits and op.weights.bytes < BF16.bytes:
            raise ConfigError(
                f"lora.variant = '{self.name}' is not allowed on '{op.role}' in {op.weights.name}: PEFT 0.21 "
                "multiplies the stored weights, so expected a base of 16 or 32 bits"
            )

    def dealt(self, lora: Described) -> Mapping[str, Num]:
        """Numbers of the adapter that the devices of a tensor-parallel group divide among themselves, by name.

        Empty if the scheme for plain factors determines that.
        """
        return {}

    def adapted_tokens(self, lora: Described, new_tokens: Num, decode: bool) -> Num:
        """Tokens of a sequence to which a `partial` variant applies, out of `new_tokens` in a step.

        decode: whether they are generated rather than of the prompt
        """
        return new_tokens

    def ahead(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The operations from the linear's input to the GEMM that replaces it; named as in `chain`.

        If there are any, the linear itself runs only in steps without adapted rows. Each takes the previous one's
        result; one on weights only is an input of the next one, the last of the GEMM. They have the linear's rows if
        any row has an adapter, and none otherwise (`Site.present`).
        """
        yield from ()

    def remade(self, site: Site) -> Remade:
        """Format of the weights that `ahead` builds to replace the linear's; "" if it builds none."""
        return ""

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The operations from the linear's input to the value added to its result, each on the previous one's result.

        Each comes with the last part of its node's name; one on weights only is an input of the next one. A variant
        that acts before or after the linear needs none, and then has no addition.
        """
        yield "lora_a", site.a
        yield "lora_b", site.b

    def behind(self, site: Site) -> Iterator[Step]:
        """The steps after the ADD, the last of which then stands for the linear."""
        yield from ()

    def shared(self, sizes: Sequence[tuple[Num, Num]], lora: Described) -> Iterator[tuple[str, Op]]:
        """Nodes that all modules of the adapter share, with the last part of their names.

        sizes: inputs and outputs of each module with the adapter
        """
        yield from ()

    def on_table(self, name: str, op: Embedding, inputs: list[Value], lora: Described) -> Iterator[Step]:
        """The steps around the token embedding, for a variant whose `table` is not `factors`.

        Raises ConfigError for a variant that does not support it.
        """
        raise ConfigError(
            f"lora.target_modules reaches the embedding '{op.module}', but variant '{self.name}' goes on linear layers "
            "only (PEFT 0.21); leave it out, or exclude_modules it"
        )
        yield

    def tensors(self, op: Gemm, rank: Num, lora: Described) -> Shapes:
        """The tensors that PEFT saves for a linear: shapes by name, without `.weight`."""
        return {"lora_A": (rank, op.k), "lora_B": (op.n, rank)}

    def table_tensors(self, op: Embedding, rank: Num, lora: Described) -> Shapes | None:
        """The same for the token embedding; None if they are the same as for a linear."""
        return {"lora_embedding_A": (rank, op.entries), "lora_embedding_B": (op.width, rank)}

    def merged(self, site: Site, merge: LoraMerge) -> LoraMerge:
        """The operation that merges it into a linear's weights; by default a plain merge of two factors."""
        return merge

    def steps(self, site: Site) -> Iterator[Step]:
        """The steps before the linear, the linear, the chain parallel to it, the ADD, and the steps after that.

        Raises ConfigError for a chain of which a part would be lost.
        """
        ahead, chain, behind = list(self.ahead(site)), list(self.chain(site)), list(self.behind(site))
        self._keep_all([part for part, _ in (*ahead, *chain)])
        if ahead:
            base = yield from self._overridden(site, ahead)
        else:
            yield site.name, site.op, site.inputs
            base = Value(site.name)
        if chain or not (ahead or behind):
            inputs = yield from _in_a_row(site.name, chain, site.inputs)
            yield f"{site.name}.lora_add", site.joined, [base, *inputs]
        yield from behind

    def _overridden(self, site: Site, ahead: Sequence[tuple[str, Op]]) -> Generator[Step, None, Value]:
        """The linear, the GEMM that replaces it, and the node for their common result, which is returned."""
        own, product, result = _overrides(site, self.remade(site))
        yield site.name, own, site.inputs
        inputs = yield from _in_a_row(site.name, ahead, site.inputs)
        yield f"{site.name}.{OVERRIDE}", product, inputs
        yield f"{site.name}.{OVERRIDDEN}", result, [Value(site.name), Value(f"{site.name}.{OVERRIDE}")]
        return Value(f"{site.name}.{OVERRIDDEN}")

    def _keep_all(self, parts: Sequence[str]) -> None:
        """Raise ConfigError if two nodes would have one name, or fused kernels would omit a part."""
        taken = ("lora_add", *(["lora_scale"] if self.scaled else []), OVERRIDE, OVERRIDDEN)
        for i, part in enumerate(parts):
            if part in parts[:i] or part in taken:
                raise ConfigError(
                    f"graphsim/lora/variants: the chain of '{self.name}' names a part '{part}', which is already used; "
                    f"expected a name for each part, other than {', '.join(taken[:-1])} and {taken[-1]}"
                )
        if self.fused and tuple(parts) != FUSED:
            raise ConfigError(
                f"graphsim/lora/variants: '{self.name}' has fused=True and a chain of {', '.join(parts) or 'nothing'}; "
                f"fused kernels run {', '.join(FUSED)} only, so expected fused=False"
            )


def _in_a_row(name: str, parts: Sequence[tuple[str, Op]], inputs: list[Value]) -> Generator[Step, None, list[Value]]:
    """The steps of these operations, each on the previous one's result; returns the inputs of the next one."""
    made: list[Value] = []
    for part, op in parts:
        given = Value(f"{name}.{part}")
        yield given.node, op, [] if op.constant else [*inputs, *made]
        if op.constant:
            made.append(given)
        else:
            inputs, made = [given], []
    return [*inputs, *made]


def _overrides(site: Site, remade: Remade) -> tuple[OverriddenGemm, OverridingGemm, OverrideResult]:
    """The linear, what runs in its place, and the result of both.

    Raises ConfigError for one that is no plain linear.
    """
    op, there = site.op, site.present
    if type(op) is not Gemm:
        raise ConfigError(
            f"lora.target_modules reaches '{op.module}', which is not a plain linear layer; variant "
            f"'{site.lora.variant}' replaces only those; leave it out, or list it in exclude_modules"
        )
    given = {f.name: getattr(op, f.name) for f in fields(Gemm)}
    formats = {"": op.weights, "factors": site.a.weights, "activations": op.activations}
    idle = 1.0 - there
    parts = tuple(replace(part, width=part.width * idle) for part in op.parts)
    held = op.parts or (Part(name=op.role, width=op.n, units=op.units),)
    own = OverriddenGemm(**given | {"n": op.n * idle, "parts": parts}, held=held)
    product = given | {
        "role": f"{op.role}.{OVERRIDE}", "m": op.m * there, "adapter": True, "shared": True, "bias": False,
        "weights": formats[remade], "module": "", "tags": (), "pack": "",
    }  # fmt: skip
    result = OverrideResult(
        role=f"{op.role}.{OVERRIDDEN}", m=op.m, n=op.n, units=op.units, parts=op.parts, activations=op.activations,
        layer=op.layer,
    )  # fmt: skip
    return own, OverridingGemm(**product, remade=remade), result

"""What a variant of LoRA says of itself; the plain adapter says nothing more than its name.

A variant is a file of `graphsim/lora/variants`, whose `VARIANT` is one of these, or a subclass with steps of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

from graphsim.errors import ConfigError
from graphsim.graph import Step, Value
from graphsim.ops import Gemm, LoraA, LoraAdd, LoraB, LoraGemm, Op, Sharding
from graphsim.ops.lora_experts import ExpertLoraGemm
from graphsim.units import Num

FUSED = ("lora_a", "lora_b")
"""The parts of a chain that fused kernels run, as a shrink and an expand."""


class Described(Protocol):
    """What variants read of an adapter's description, a `LoraConfig`; its fields have the same names."""

    @property
    def strategy(self) -> str:
        """`dynamic` or `merge`."""

    @property
    def rank(self) -> Num:
        """Of the factors."""

    @property
    def rank_pattern(self) -> Mapping[str, Num]:
        """Other ranks for some modules."""

    @property
    def group_size(self) -> Num:
        """Inputs that QA-LoRA pools."""

    @property
    def blocks(self) -> Num:
        """Of BD-LoRA's block-diagonal factor."""

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
        """Prompt tokens behind aLoRA's invocation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """A linear that an adapter goes on, and the plain adapter's operations for it.

    name, op, inputs: of the linear's node; a, b, joined: the two factors, and the ADD behind them
    """

    name: str
    op: Gemm
    inputs: list[Value]
    a: LoraA
    b: LoraB
    joined: LoraAdd
    lora: Described

    def between(self, part: str) -> LoraGemm:
        """An r x r matrix that takes what A gives, of each adapter; on experts, of each expert."""
        kind = ExpertLoraGemm if isinstance(self.a, ExpertLoraGemm) else LoraGemm
        square = kind(**{f.name: getattr(self.a, f.name) for f in fields(kind)})
        return replace(square, role=f"{self.op.role}.{part}", k=self.a.n, split=Sharding.REPLICATED, units=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A variant of LoRA.

    name: as `LoraConfig.variant` has it
    fused: whether the fused kernels of serving engines run it; engines refuse the others when they load them
        (vLLM, `vllm/lora/peft_helper.py`)
    unmerged: why it is applied dynamically only, as errors and advice say it; "" where it can be merged
    merge_passes: times that a merge reads or writes a 16-bit temporary of the weight's shape beyond a plain one's
    exact_merge: whether a base of few bits takes the merge without being rounded again
    partial: whether it works on a part of a step's tokens, by `adapted_tokens`
    scaled: whether alpha / r multiplies what the chain gives; engines that run module by module have a kernel for it
    bias: whether PEFT lets the second factor have a bias
    peft_flag: the flag of PEFT's `adapter_config.json` that stands for it
    simpler: the lever that advice names for going back to the plain adapter; "" for none
    """

    name: str
    fused: bool = False
    unmerged: str = ""
    merge_passes: float = 0.0
    exact_merge: bool = False
    partial: bool = False
    scaled: bool = True
    bias: bool = True
    peft_flag: str = ""
    simpler: str = ""

    def check(self, lora: Described) -> None:
        """Raise ConfigError, naming field, value and what is allowed, for an adapter that the variant cannot be."""
        if lora.strategy == "merge" and self.unmerged:
            raise ConfigError(
                f"lora.strategy = 'merge' is not allowed with variant '{self.name}', since {self.unmerged}; "
                "allowed: dynamic"
            )

    def dealt(self, lora: Described) -> Mapping[str, Num]:
        """Numbers of the adapter that the devices of a tensor-parallel group share out, by name.

        Empty where that follows from the scheme by which plain factors are cut.
        """
        return {}

    def adapted_tokens(self, lora: Described, new_tokens: Num, decode: bool) -> Num:
        """Tokens of one sequence that the adapter works on, of `new_tokens` in a step; asked of `partial` variants.

        decode: whether they are generated, not the prompt's
        """
        return new_tokens

    def chain(self, site: Site) -> Iterator[tuple[str, Op]]:
        """The operations from the linear's input to what is added to its result, each on the one before it.

        Each comes with the last part of its node's name.
        """
        yield "lora_a", site.a
        yield "lora_b", site.b

    def behind(self, site: Site) -> Iterator[Step]:
        """The steps behind the ADD, the last of which then stands for the linear."""
        yield from ()

    def steps(self, site: Site) -> Iterator[Step]:
        """The linear, the chain beside it, the ADD, and what is behind that.

        Raises ConfigError for a chain of which a part would be lost.
        """
        chain = list(self.chain(site))
        self._keep_all([part for part, _ in chain])
        yield site.name, site.op, site.inputs
        inputs = site.inputs
        for part, op in chain:
            yield f"{site.name}.{part}", op, inputs
            inputs = [Value(f"{site.name}.{part}")]
        yield f"{site.name}.lora_add", site.joined, [Value(site.name), *inputs]
        yield from self.behind(site)

    def _keep_all(self, parts: Sequence[str]) -> None:
        """Raise ConfigError where two nodes would have one name, or fused kernels leave a part out."""
        taken = ("lora_add", "lora_scale") if self.scaled else ("lora_add",)
        for i, part in enumerate(parts):
            if part in parts[:i] or part in taken:
                raise ConfigError(
                    f"graphsim/lora/variants: the chain of '{self.name}' names a part '{part}', which is taken; "
                    f"expected a name for each part, other than {' and '.join(taken)}"
                )
        if self.fused and tuple(parts) != FUSED:
            raise ConfigError(
                f"graphsim/lora/variants: '{self.name}' has fused=True and a chain of {', '.join(parts) or 'nothing'}; "
                f"fused kernels run {', '.join(FUSED)} only, so expected fused=False"
            )

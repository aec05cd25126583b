"""Mixture of experts: routing, the experts' GEMMs, and the copies of tokens that they work on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.expert_ranks import reach
from graphsim.ops.linear import Gemm, limited, stored_bytes
from graphsim.ops.saved import Saved
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


def expected_experts(tokens: Num, experts: int, chosen: int, skew: float = 0.0) -> Num:
    """Expected number of distinct experts that `tokens` tokens reach when each chooses `chosen` of them.

    An expert of popularity p is missed by a token with probability 1 - chosen * p, so
    sum over experts of 1 - (1 - chosen * p)^tokens; p is uniform, or follows Zipf's law with exponent `skew`.
    """
    if not skew:
        return experts * (1.0 - np.power(1.0 - chosen / experts, tokens))
    tokens = np.asarray(tokens, dtype=float)
    weights = np.arange(1, experts + 1, dtype=float) ** -skew
    reached = np.minimum(chosen * weights / weights.sum(), 1.0)
    missed: Num = np.power(1.0 - reached, tokens[..., None]).sum(axis=-1)
    return experts - missed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertGemm(Gemm):
    """`m` routed rows through the weights [n, k] of the experts that they are routed to, in one grouped kernel.

    experts: whose weights this device holds, of `of` in all; tokens choose `chosen` of these
    skew: Zipf exponent of the experts' popularity
    ranks: groups that the experts are distributed over; within a group, weights are cut as any GEMM's
    placed: how experts lie on them, a name of `graphsim.ops.expert_ranks.PLACEMENTS`
    copies: number of copies of popular experts, in addition to the `of`
    hottest: rows of the busiest rank, which `m` counts, over the mean of all
    by_tokens: rows come from all replicas and go back to them
    rank_factor: of an adapter's rank on this weight; fused gate and up count twice
    separate: each expert's gate, up and down are modules of their own to PEFT, with a pair each
    fuses: what adapters call the weights that this one holds; none where no target reaches it
    gated: whether an expert multiplies by three matrices, gate, up and down, or by two
    always: how many of the experts every token chooses: shared ones that run with the others
    """

    op_type: ClassVar[OpType] = OpType.EXPERTS
    family: ClassVar[str] = "moe"

    experts: Num
    of: int
    chosen: int
    tokens: Num
    skew: float = 0.0
    ranks: Num = 1.0
    placed: str = "random"
    copies: int = 0
    hottest: Num = 1.0
    by_tokens: bool = False
    rank_factor: int = 1
    separate: bool = False
    fuses: tuple[str, ...] = ()
    gated: bool = True
    always: int = 0

    @property
    def placement(self) -> Sharding:
        """Rows stay with their experts; weights sharded over k yield partial sums."""
        if self.by_tokens:
            return Sharding.TOKENS
        return Sharding.COLLECT if self.split is Sharding.ROW else Sharding.DEALT

    @property
    def hit(self) -> Num:
        """Expected number of this device's experts that at least one token reaches."""
        return self.reached(self.tokens)

    def reached(self, tokens: Num) -> Num:
        """Expected number of this device's experts that some of the tokens reach.

        On one rank, popular experts are fewer experts. With several ranks, the busiest one is assumed to reach no
        fewer than with equally popular experts, since the popular ones change from layer to layer.
        """
        if self.always:
            fewer: dict[str, Any] = {name: getattr(self, name) - self.always for name in ("experts", "of", "chosen")}
            return replace(self, always=0, **fewer).reached(tokens) + self.always * np.minimum(np.ceil(tokens), 1.0)
        held, alone = self.of + self.copies, np.less_equal(self.ranks, 1.0)
        found = expected_experts(tokens, held, self.chosen) * self.experts / held
        if self.skew and self.placed == "contiguous":
            found = np.maximum(found, self._reached_together(tokens))
        if self.skew and np.any(alone):
            popular = expected_experts(tokens, self.of, self.chosen, self.skew) * self.experts / self.of
            found = popular if np.all(alone) else np.where(alone, popular, found)
        return found

    def _reached_together(self, tokens: Num) -> Num:
        """Experts reached among the most popular ones that a device holds."""
        missed = np.power(1.0 - reach(self.of, self.chosen, self.skew), np.asarray(tokens, dtype=float)[..., None])
        mine = np.less(np.arange(self.of), np.asarray(self.experts)[..., None])
        found: Num = ((1.0 - missed) * mine).sum(axis=-1)
        return found

    def work(self) -> Work:
        """flops = 2mnk; reads the weights of the experts hit, the rows once, writes the results."""
        act = self.activations.bytes
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.hit * self.n * self.k * self.weights.bytes,
            input_bytes=self.m * self.k * act,
            write_bytes=self.m * self.n * act,
        )

    @property
    def parameters(self) -> Num:
        """nk for each expert, and n for a bias."""
        return self.experts * (self.n * self.k + (self.n if self.bias else 0.0))

    @property
    def weight_storage_bytes(self) -> Num:
        """Weights in their format, biases in the activations'."""
        bias = self.n * self.activations.bytes if self.bias else 0.0
        return self.experts * (stored_bytes(self.weights, self.n, self.k) + bias)

    def ways(self, devices: Num) -> tuple[Num, Num]:
        """Number of groups over which experts are distributed, and of ways in which a group shards their weights."""
        groups = np.minimum(self.ranks, devices)
        return groups, limited(devices / groups, self.units)

    def cut(self, ways: Num) -> ExpertGemm:
        """Experts are distributed over `ranks` groups, each cuts the weights among its devices."""
        groups, inner = self.ways(ways)
        share = replace(self, m=self.m / groups, experts=self.experts / groups)
        if self.split is Sharding.ROW:
            return replace(share, k=self.k / inner)
        parts = tuple(part.cut(inner) for part in self.parts)
        return replace(share, n=self.n / inner, parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertActivation(Op):
    """The nonlinearity between the experts' projections; distributed as they are."""

    op_type: ClassVar[OpType] = OpType.ACTIVATION
    family: ClassVar[str] = "moe"

    elems: Num
    reads: Num = 2.0

    def work(self) -> Work:
        """Each input is read once, the result written once; about four steps per element."""
        moved = self.elems * self.activations.bytes
        return Work(vector_flops=4.0 * self.elems, input_bytes=self.reads * moved, write_bytes=moved)

    @property
    def out_elems(self) -> Num:
        """Rows times the experts' width."""
        return self.elems

    @property
    def in_elems(self) -> Num | None:
        """`reads` times the elements."""
        return self.reads * self.elems

    @property
    def saved(self) -> Saved:
        """Its inputs, and the nonlinearity's result before it is multiplied by the second one."""
        act = self.activations.bytes
        return Saved(inputs=self.reads * self.elems * act, own=np.minimum(self.reads - 1.0, 1.0) * self.elems * act)

    def cut(self, ways: Num) -> ExpertActivation:
        """A share of the elements, whether experts or their weights are distributed."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route(Op):
    """Picks `chosen` of `experts` for every token from the router's logits."""

    op_type: ClassVar[OpType] = OpType.ROUTER
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    family: ClassVar[str] = "moe"

    tokens: Num
    experts: Num
    chosen: Num
    learned: Num = 0.0

    def work(self) -> Work:
        """One pass over the logits, about five steps each; writes ids and weights."""
        logits = self.tokens * self.experts
        written = 8.0 * self.tokens * self.chosen
        return Work(vector_flops=5.0 * logits, input_bytes=logits * self.activations.bytes, write_bytes=written)

    @property
    def idle(self) -> bool:
        """Whether no token passes it."""
        return not may_be_nonzero(self.tokens)

    @property
    def parameters(self) -> Num:
        """Learned corrections of the scores."""
        return self.learned

    @property
    def out_elems(self) -> Num:
        """One choice per token and place."""
        return self.tokens * self.chosen

    @property
    def saved(self) -> Saved:
        """The softmax over all experts in fp32, and of each choice the expert's number in 8 bytes and its weight in 4.

        transformers 5, `models/mixtral/modeling_mixtral.py`, MixtralTopKRouter; derived, not measured.
        """
        return Saved(own=4.0 * self.tokens * self.experts + 12.0 * self.tokens * self.chosen)

    def cut(self, ways: Num) -> Route:
        """Every device routes all its tokens."""
        return replace(self, tokens=self.tokens / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Permute(Op):
    """Copies every token's row for each expert chosen (`gather`), or sums the results back (`not gather`).

    by_tokens: each device works on its own tokens, as expert parallelism across replicas needs
    ranks: groups that the experts are distributed over; each keeps the rows of its own experts
    """

    op_type: ClassVar[OpType] = OpType.COPY
    family: ClassVar[str] = "moe"

    tokens: Num
    width: Num
    chosen: Num
    gather: bool
    by_tokens: bool = False
    ranks: Num = 1.0

    @property
    def placement(self) -> Sharding:
        """Where it runs: on the device's own tokens, or on the way to or from the device's experts."""
        if self.by_tokens:
            return Sharding.TOKENS
        return Sharding.DEAL_OUT if self.gather else Sharding.COLLECT

    @property
    def rows(self) -> Num:
        """Rows that are routed."""
        return self.tokens * self.chosen

    def work(self) -> Work:
        """Reads one side and writes the other."""
        short = self.tokens * self.width * self.activations.bytes
        long = self.rows * self.width * self.activations.bytes
        read, written = (short, long) if self.gather else (long, short)
        return Work(vector_flops=0.0 if self.gather else self.rows * self.width, input_bytes=read, write_bytes=written)

    @property
    def out_elems(self) -> Num:
        """Routed rows, or tokens again."""
        return (self.rows if self.gather else self.tokens) * self.width

    @property
    def saved(self) -> Saved:
        """The rows' numbers in 8 bytes on the way to experts; on the way back, the rows, which weights multiply."""
        if self.gather:
            return Saved(own=8.0 * self.rows)
        return Saved(inputs=self.rows * self.width * self.activations.bytes)

    def cut(self, ways: Num) -> Permute:
        """A share of the tokens, or of the rows that go to the experts of one group."""
        if self.by_tokens:
            return replace(self, tokens=self.tokens / ways)
        return replace(self, chosen=self.chosen / np.minimum(self.ranks, ways))

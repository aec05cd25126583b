"""A server whose attention runs in replicas: experts over more ranks than one replica's tensor-parallel group has.

Each replica has requests, a cache and a scheduler of its own, and all of them step together, as they exchange tokens
with the ranks of the experts (vLLM documentation, `serving/data_parallel_deployment.md`; SGLang's
`--enable-dp-attention`). They are simulated as one scheduler with the places, blocks and tokens of all, whose requests
are spread evenly: a step takes as long as on the replica that has the most of them, as in `Deployment.shares`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.serving.rules import Rules
from graphsim.serving.step_price import DraftingPrice, StepPrice

Work = tuple[int, float, int, int, int, int]
"""Tokens, pairs, prompts and endings of prompts, and sequences and context of generation."""


def rules_of_all(rules: Rules, replicas: int) -> Rules:
    """The rules of one replica for all of them. No prompt gets more tokens of a step than one replica computes."""
    if replicas == 1:
        return rules
    most = rules.max_num_batched_tokens
    return replace(
        rules, kv_blocks=rules.kv_blocks * replicas, max_num_seqs=rules.max_num_seqs * replicas,
        max_num_batched_tokens=most * replicas,
        long_prefill_token_threshold=min(rules.long_prefill_token_threshold or most, most) if rules.chunked else 0,
    )  # fmt: skip


def price_of_all(price: StepPrice, replicas: int) -> StepPrice:
    """The prices of one replica's steps for steps of all of them."""
    return price if replicas == 1 else SpreadPrice(price, replicas)


@dataclass(frozen=True, slots=True)
class SpreadPrice:
    """Prices of steps whose requests are spread over replicas.

    price: of a step of one replica
    """

    price: StepPrice
    replicas: int

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """As `StepPrice.decode`."""
        most = self._most(batch)
        return self.price.decode(most, round(context * most / batch), min(adapters, most))

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `StepPrice.mixed`."""
        work = self._work(prompt_tokens, pairs, prompts, ending, batch, context)
        return self.price.mixed(*work, min(adapters, work[2] + work[4]))

    def behind_s(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `DraftingPrice.behind_s`; none where the prices are not of a server that drafts."""
        if not isinstance(self.price, DraftingPrice):
            return 0.0
        return self.price.behind_s(*self._work(prompt_tokens, pairs, prompts, ending, batch, context), adapters)

    def load(self, adapter: int, from_disk: bool) -> float:
        """As `StepPrice.load`."""
        return self.price.load(adapter, from_disk)

    def _most(self, count: int) -> int:
        """Of a number of requests, those of the replica that has the most."""
        return -(-count // self.replicas)

    def _work(self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int) -> Work:
        """What of a step is on that replica."""
        share = self._most(prompts) / prompts if prompts else 0.0
        most = self._most(batch)
        return (
            max(round(prompt_tokens * share), min(prompt_tokens, 1)), pairs * share, self._most(prompts),
            self._most(ending), most, round(context * most / batch) if batch else 0,
        )  # fmt: skip

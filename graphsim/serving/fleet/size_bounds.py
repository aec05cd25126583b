"""Lower bounds on the replicas of a choice, without a run, so that infeasible and expensive ones are never
simulated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, inf
from typing import Protocol

import numpy as np

from graphsim.serving.rules import Rules
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.table import BASE, RequestTable
from graphsim.traffic.traffic import Traffic
from graphsim.units import seconds_text

RESERVE = 0.8
"""Share of the replicas that mean lengths and steps require: by chance the requests of a run may be lighter."""


class Server(Protocol):
    """One replica of a choice, and the whole traffic."""

    @property
    def table(self) -> RequestTable:
        """The requests."""

    @property
    def rules(self) -> Rules:
        """The scheduler's rules in its engine."""

    @property
    def price(self) -> StepPrice:
        """Times of its steps."""

    @property
    def traffic(self) -> Traffic:
        """Whose requests these are."""


def why_never(server: Server, limits: Mapping[str, float], attainment: float, prompts: Server | None = None) -> str:
    """Why no number of replicas keeps the limits (not even a request alone on a replica does); else empty.

    A request's first token takes at least the step of its prompt, each further one a step of one sequence. The share of
    requests that must keep the limits is assumed to have the shortest prompts and the fewest tokens in the cache. A
    step that verifies drafted tokens is assumed to yield all of them.
    prompts: the prefill workers, if there are any
    """
    first = server if prompts is None else prompts
    table, rules, price = server.table, server.rules, server.price
    tokens = table.input_tokens + table.output_tokens
    too_long = (tokens > rules.max_model_len) | (tokens - 1 > rules.kv_blocks * rules.block_tokens)
    if too_long.mean() > 1.0 - attainment:
        most = min(rules.max_model_len, rules.kv_blocks * rules.block_tokens)
        return f"{too_long.mean():.1%} of the requests are longer than a replica takes, {most:,} tokens"
    share = 100.0 * attainment
    ttft_s, tpot_s = limits.get("ttft_s", inf), limits.get("tpot_s", inf)
    adapters = 1 if (table.adapter != BASE).all() else 0
    if ttft_s < inf and table.prefixes is None:
        prompt = int(np.percentile(table.input_tokens, share, method="lower"))
        chunk = min(prompt, first.rules.piece_tokens)
        alone = first.price.mixed(chunk, chunk * (chunk + 1) / 2.0, 1, int(chunk == prompt), 0, 0, adapters)
        if alone > ttft_s:
            return (
                f"a prompt of {prompt:,} tokens takes {seconds_text(alone)} alone, ttft allows {seconds_text(ttft_s)}"
            )
    further = table.output_tokens > 1
    if tpot_s < inf and further.mean() > 1.0 - attainment:
        context = int(np.percentile(table.input_tokens[further], 0))
        alone = price.decode(1, max(context, 1), adapters)[0] / _most_tokens(rules)
        if alone > tpot_s:
            return f"a token takes {seconds_text(alone)} in a batch of one, tpot allows {seconds_text(tpot_s)}"
    return ""


def prompts_never(prompts: Server, workers: int, limits: Mapping[str, float], attainment: float) -> str:
    """Why this number of workers cannot compute the prompts of an open loop in time; empty if it can."""
    span_s, allowed_s = prompts.traffic.duration_s, min(limits.get("ttft_s", inf), limits.get("e2e_s", inf))
    if span_s is None or allowed_s == inf or prompts.table.prefixes is not None:
        return ""
    adapters = 1 if (prompts.table.adapter != BASE).all() else 0
    work_s = _prompt_token_s(prompts.rules, prompts.price, adapters) * float(prompts.table.input_tokens.sum())
    least = ceil(RESERVE * attainment * work_s / (span_s + allowed_s))
    if least <= workers:
        return ""
    return f"prompts need at least {least} prefill workers, there {'is' if workers == 1 else 'are'} {workers}"


def _most_tokens(rules: Rules) -> int:
    """Most tokens that a step gives a sequence."""
    return 1 if rules.drafted is None else rules.drafted.tokens + 1


def least_replicas(server: Server, limits: Mapping[str, float], attainment: float, *, apart: bool = False) -> int:
    """Replicas below which the work of an open loop does not fit into the time that limits leave for it.

    Engine time of the share of requests that must be served, at the batch that is best for it and keeps tpot, over the
    time from the first arrival to the last moment at which an answer may end. 1 for a closed loop, whose requests wait.
    apart: whether others compute the prompts
    """
    table, span_s = server.table, server.traffic.duration_s
    if span_s is None:
        return 1
    rules, price = server.rules, server.price
    ttft_s, tpot_s, e2e_s = (limits.get(name, inf) for name in ("ttft_s", "tpot_s", "e2e_s"))
    adapters = 1 if (table.adapter != BASE).all() else 0
    whole_s = min(e2e_s, ttft_s + tpot_s * float(table.output_tokens.max(initial=1)))
    context = float(table.input_tokens.mean()) + float(table.output_tokens.mean()) / 2.0
    batches = list(_batches(rules, context))
    prompt_s = 0.0 if apart or table.prefixes is not None else _prompt_token_s(rules, price, adapters)
    prompts = prompt_s * float(table.input_tokens.sum())
    found = prompts / (span_s + min(ttft_s, e2e_s)) if min(ttft_s, e2e_s) < inf else 0.0
    if whole_s < inf:
        most = _most_tokens(rules)
        steps = [(price.decode(n, round(n * context), adapters)[0] / most, n) for n in batches]
        kept = [seconds / n for seconds, n in steps if seconds <= tpot_s] or [steps[0][0]]
        tokens = float(np.maximum(table.output_tokens - 1, 0).sum())
        found = max(found, (prompts + tokens * min(kept)) / (span_s + whole_s))
    return max(ceil(RESERVE * attainment * found), 1)


def _batches(rules: Rules, context: float) -> Iterator[int]:
    """Sizes of a batch that the cache and the engine allow, doubling."""
    most = max(min(rules.max_num_seqs, int(rules.kv_blocks * rules.block_tokens / max(context, 1.0))), 1)
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def _prompt_token_s(rules: Rules, price: StepPrice, adapters: int) -> float:
    """The least time that a prompt's token adds to a decode step."""
    found = []
    for batch in (1, 16):
        base = price.decode(batch, batch * 512, adapters)[0]
        for tokens in {min(size, rules.max_num_batched_tokens) for size in (256, 1024, 4096)}:
            step = price.mixed(tokens, tokens * (tokens + 1) / 2.0, 1, 0, batch, batch * 512, adapters)
            found.append(max(step - base, 0.0) / tokens)
    return min(found)

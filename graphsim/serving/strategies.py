"""Ways to serve adapters on one engine, by name: how the weights change, and where adapters are kept."""

from __future__ import annotations

from collections.abc import Callable

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.credits import Credits
from graphsim.serving.merged import Greedy, InOrder, LongestQueue, TimeSlice
from graphsim.serving.mixture import Mixture
from graphsim.serving.weights import Weights, WeightTimes

MERGED_POLICIES: dict[str, Callable[[WeightTimes], Weights]] = {
    "greedy": Greedy,
    "fcfs": InOrder,
    "longest_queue": LongestQueue,
    "time_slice": TimeSlice,
    "credits": Credits,
}
"""Whose turn it is to be merged; `credits` runs unmerged where no adapter dominates."""

STRATEGIES = ("dynamic", "merged", "mixed", "unified")
"""`dynamic` computes adapters in addition to the weights, from slots; `merged` keeps one at a time in the weights;
`mixed` keeps the hottest there and computes the others in addition to it; `unified` is dynamic with adapters in blocks
of the KV cache.
"""

DEFAULT_POLICY = "time_slice"
"""It avoids starvation: on skewed traffic of three to eight adapters its slowest requests were the least slow, and its
mean within a tenth or so of the best of the policies that always merge."""


def strategy_names(text: str) -> tuple[str, str]:
    """A strategy and its policy, of a name such as `merged:credits`; raises ConfigError for others.

    The policy is empty where the strategy has none.
    """
    strategy, colon, policy = str(text).lower().partition(":")
    if strategy not in STRATEGIES:
        raise ConfigError(f"strategy = '{text}' is not known; {choices_text(strategy, STRATEGIES)}")
    if strategy != "merged":
        if colon:
            raise ConfigError(f"strategy '{strategy}' has no policy, but '{policy}' was given; only 'merged' has")
        return strategy, ""
    policy = policy if colon else DEFAULT_POLICY
    if policy not in MERGED_POLICIES:
        raise ConfigError(
            f"policy = '{policy}' is not known for strategy 'merged'; {choices_text(policy, MERGED_POLICIES)}"
        )
    return strategy, policy


def weights_for(text: str, times: WeightTimes) -> Weights:
    """What changes the weights under a strategy's name (`merged:fcfs`); raises ConfigError for names of no strategy."""
    strategy, policy = strategy_names(text)
    if strategy == "merged":
        return MERGED_POLICIES[policy](times)
    return Mixture(times) if strategy == "mixed" else Weights(times)

"""The most tokens that requests will have in the cache at a time, if each runs to its end and no other arrives."""

from __future__ import annotations

from collections.abc import Iterable


def peak_tokens(requests: Iterable[tuple[int, int]]) -> int:
    """Most tokens at a time of requests, from the tokens that each has and will still get.

    The cache is fullest when one of them ends: those with at least as many tokens to go are still running (S-LoRA
    18895fa8, `slora/server/router/req_queue.py`, _can_add_new_req; LightLLM's estimate).
    """
    have, most = 0, 0
    for count, (tokens, left) in enumerate(sorted(requests, key=lambda request: -request[1]), 1):
        have += tokens
        most = max(most, have + count * left)
    return most

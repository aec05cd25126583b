"""A context-parallel rank's part of a step: some tokens of every prompt, and a part of the KV cache.

All ranks have the same number of query-key pairs of a causal prompt: a rank holds two of 2c chunks, one from the start
and one from the end (zigzag, arXiv 2311.09431; Llama 3, arXiv 2407.21783, section 3.3.2). The chunks are assumed to
divide the prompt; the engines' padding is not modelled. In a decode step every rank computes all tokens, and attends to
its own part of the KV cache if the cache is sharded (vLLM 0.33, `vllm/config/parallel.py`: prefill and decode context
parallelism over the same ranks; Helix, arXiv 2507.07120).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.phase import Phase, Segment
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankShare(Segment):
    """One rank's part of a segment; `new_tokens` and `past_tokens` are per sequence on this rank.

    whole: the segment of all ranks
    ranks: number of ranks
    shares_cache: whether the KV cache is sharded over the
        ranks rather than replicated
    """

    whole: Segment
    ranks: Num
    shares_cache: bool

    @property
    def tokens(self) -> Num:
        """Tokens on this rank: its part of a prompt, or all tokens of a decode step."""
        return self.whole.tokens if self.decode else self.whole.tokens / self.ranks

    def pairs(self, window: Num = 0, causal: bool = True) -> Num:
        """Query-key pairs on this rank: its queries with all keys of a prompt, or all decode queries with its keys."""
        return self._seen(self.whole.pairs(window, causal))

    def kv_tokens(self, window: Num = 0) -> Num:
        """Cache rows that its queries attend to: all of a prompt, or this rank's part in a decode step."""
        rows = self.whole.kv_tokens(window)
        return rows / self.ranks if self.decode and self.shares_cache else rows

    def kept_tokens(self, window: Num = 0) -> Num:
        """Cache rows in the rank's memory after the step."""
        rows = self.whole.kept_tokens(window)
        return rows / self.ranks if self.shares_cache else rows

    def _seen(self, pairs: Num) -> Num:
        return pairs if self.decode and not self.shares_cache else pairs / self.ranks


def on_rank(phase: Phase, ranks: Num, *, shares_cache: bool) -> Phase:
    """The step as one of `ranks` context-parallel ranks runs it; every rank runs the output head."""
    segments = tuple(_share(segment, ranks, shares_cache) for segment in phase.segments)
    shared = replace(phase, segments=segments)
    return replace(shared, logit_rows=shared.tokens) if phase.all_logits else shared


def _share(segment: Segment, ranks: Num, shares_cache: bool) -> RankShare:
    own = segment.new_tokens if segment.decode else segment.new_tokens / ranks
    return RankShare(
        sequences=segment.sequences, new_tokens=own, past_tokens=segment.past_tokens + segment.new_tokens - own,
        decode=segment.decode, media=segment.media, source_tokens=segment.source_tokens, whole=segment, ranks=ranks,
        shares_cache=shares_cache,
    )  # fmt: skip

"""A context-parallel rank's part of a step: some tokens of every prompt, and its part of what the cache holds.

Of a causal prompt every rank has as many query-key pairs: it holds two of 2c chunks, one from the start and one from
the end (zigzag, arXiv 2311.09431; Llama 3, arXiv 2407.21783, section 3.3.2). Chunks are taken to divide a prompt; what
engines pad it by is left out. A generated token is every rank's: each computes all rows of a step of generation, and
attends to its own part of the cache where ranks share that (vLLM 0.33, `vllm/config/parallel.py`: prefill and decode
context parallelism over the same ranks; Helix, arXiv 2507.07120).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.phase import Phase, Segment
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankShare(Segment):
    """One rank's part of a segment; `new_tokens` and `past_tokens` are of one sequence on it.

    whole: the segment of all ranks; ranks: how many there are; shares_cache: whether each keeps a part of the cache,
    and not all of it
    """

    whole: Segment
    ranks: Num
    shares_cache: bool

    @property
    def tokens(self) -> Num:
        """Its part of a prompt's tokens; all generated ones."""
        return self.whole.tokens if self.decode else self.whole.tokens / self.ranks

    def pairs(self, window: Num = 0, causal: bool = True) -> Num:
        """Of its queries with everybody's keys, or of all generating queries with its keys: as many on each rank."""
        return self._seen(self.whole.pairs(window, causal))

    def kv_tokens(self, window: Num = 0) -> Num:
        """Cache rows that its queries can see: all of a prompt's, its own of a generating sequence's."""
        rows = self.whole.kv_tokens(window)
        return rows / self.ranks if self.decode and self.shares_cache else rows

    def kept_tokens(self, window: Num = 0) -> Num:
        """Cache rows in its memory once the step is done."""
        rows = self.whole.kept_tokens(window)
        return rows / self.ranks if self.shares_cache else rows

    def _seen(self, pairs: Num) -> Num:
        return pairs if self.decode and not self.shares_cache else pairs / self.ranks


def on_rank(phase: Phase, ranks: Num, *, shares_cache: bool) -> Phase:
    """The step as one of `ranks` context-parallel ranks runs it; the output head runs on all of them."""
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

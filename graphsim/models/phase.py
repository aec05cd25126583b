"""The contents of a step: sequences with new tokens and a past.

Every phase reduces to a few sums (rows of every GEMM, attended pairs, cache rows read), so one builder serves
prefill, decode, chunked and mixed batches; a ragged batch is a list of segments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphsim.models.media import NO_MEDIA, Media
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """Identical sequences: each has `new_tokens` after `past_tokens` that the cache already holds.

    media: images and sound of each, for the model's towers; None for a step without the towers
    source_tokens: rows of an encoder that each sequence reads in addition to its tokens; a prompt step encodes them

    """

    sequences: Num
    new_tokens: Num
    past_tokens: Num = 0.0
    decode: bool = False
    media: Media | None = None
    source_tokens: Num = 0.0

    @property
    def source_rows(self) -> Num:
        """Rows of the encoder that the sequences read, each once per sequence."""
        return self.sequences * self.source_tokens

    @property
    def encoded_rows(self) -> Num:
        """Encoder rows that this step computes."""
        return 0.0 if self.decode else self.source_rows

    @property
    def source_pairs(self) -> Num:
        """Pairs of a query and a row of the encoder: every query sees every row."""
        return self.tokens * self.source_tokens

    @property
    def tokens(self) -> Num:
        """Rows that this segment adds to every GEMM."""
        return self.sequences * self.new_tokens

    def pairs(self, window: Num = 0, causal: bool = True) -> Num:
        """Query-key pairs attended, of all sequences.

        Causal: query i of q sees past + i keys, at most `window` (0: no window); else every query sees every key.
        """
        q, past = self.new_tokens, self.past_tokens
        if not causal:
            return self.sequences * q * (past + q)
        if not window:
            return self.sequences * (q * past + q * (q + 1.0) / 2.0)
        growing = np.minimum(np.maximum(window - past, 0.0), q)
        return self.sequences * (growing * past + growing * (growing + 1.0) / 2.0 + (q - growing) * window)

    def near_pairs(self, window: Num = 0) -> Num:
        """Query-key pairs of new positions at most `window` apart, on either side; 0: all of them."""
        n = self.new_tokens
        if not window:
            return self.sequences * n * n
        reach = np.minimum(window, np.maximum(n - 1.0, 0.0))
        return self.sequences * (n + reach * (2.0 * n - reach - 1.0))

    def kv_tokens(self, window: Num = 0) -> Num:
        """Cache rows that the queries can see, each counted once per sequence."""
        context = self.past_tokens + self.new_tokens
        if not window:
            return self.sequences * context
        return self.sequences * np.minimum(context, window + self.new_tokens - 1.0)

    def kept_tokens(self, window: Num = 0) -> Num:
        """Cache rows in memory once the step is done."""
        context = self.past_tokens + self.new_tokens
        return self.sequences * (np.minimum(context, window) if window else context)

    def entries(self, ratio: Num) -> Num:
        """Rows of a cache with one entry for every `ratio` tokens, once the step is done; none for the remainder."""
        return self.sequences * np.floor((self.past_tokens + self.new_tokens) / ratio)

    def entry_pairs(self, ratio: Num, most: Num = 0, causal: bool = True) -> Num:
        """Pairs of a query and an entry that it may see: those of whole windows up to it, at most `most` (0 = all).

        Query t of a sequence, counted from 1, sees floor(t / ratio) entries; not causal: all entries.
        """
        q, past = self.new_tokens, self.past_tokens
        if not causal:
            return q * self.entries(ratio)
        seen = _entries_seen(past + q, ratio, most) - _entries_seen(past, ratio, most)
        return self.sequences * seen

    def block(self, rows: Num) -> Segment:
        """`rows` further drafted tokens of each sequence, after all tokens of this step."""
        return Segment(sequences=self.sequences, new_tokens=rows, past_tokens=self.past_tokens + self.new_tokens)

    def part(self, sequences: Num) -> Segment:
        """A part of the sequences; of a split one, a share of its tokens, pairs and cache rows."""
        return replace(self, sequences=sequences)

    def halves(self, split: Num) -> tuple[Segment, Segment]:
        """Two halves if split is 1, the larger one first; everything and nothing if it is 0. Prompts may be split."""
        half = self.sequences / 2.0
        second = (np.floor(half) if self.decode else half) * split
        return self.part(self.sequences - second), self.part(second)


def _entries_seen(tokens: Num, ratio: Num, most: Num) -> Num:
    """The sum over t = 1 ... tokens of floor(t / ratio), or of `most` where that is less."""
    whole = np.minimum(tokens, ratio * most) if most else tokens
    full = np.floor(whole / ratio)
    return ratio * full * (full - 1.0) / 2.0 + full * (whole - full * ratio + 1.0) + (tokens - whole) * most


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sums(Segment):
    """Sequences that may differ, described by their sums; `new_tokens` and `past_tokens` are means.

    all_tokens: new tokens, summed; all_pairs: causal query-key pairs without a window, summed
    all_rows: cache rows that the queries can see, past and new, summed
    Exact for identical sequences, and without a window for all. Within a window, sequences that differ count as equal
    ones with the same sums, which attend at least as many rows as they do.
    """

    all_tokens: Num
    all_pairs: Num
    all_rows: Num

    @property
    def tokens(self) -> Num:
        """Rows that this segment adds to every GEMM."""
        return self.all_tokens

    def pairs(self, window: Num = 0, causal: bool = True) -> Num:
        """Query-key pairs attended: of equal sequences where there is a window, or each query sees every key."""
        if not causal:
            return self.all_tokens * self.all_rows / np.maximum(self.sequences, _NEARLY_NONE)
        if not window:
            return self.all_pairs
        if self.decode:
            return self.kv_tokens(window)
        equal = Segment(sequences=self.sequences, new_tokens=self.new_tokens, past_tokens=self._mean_past)
        return np.minimum(equal.pairs(window), self.all_pairs)

    def kv_tokens(self, window: Num = 0) -> Num:
        """Cache rows that the queries can see, each counted once per sequence."""
        if not window:
            return self.all_rows
        return np.minimum(self.all_rows, self.sequences * (window - 1.0) + self.all_tokens)

    def kept_tokens(self, window: Num = 0) -> Num:
        """Cache rows in memory once the step is done."""
        return np.minimum(self.all_rows, self.sequences * window) if window else self.all_rows

    def entries(self, ratio: Num) -> Num:
        """For lengths that end anywhere in a window: on average half a window remains."""
        return np.maximum(self.all_rows - self.sequences * (ratio - 1.0) / 2.0, 0.0) / ratio

    def entry_pairs(self, ratio: Num, most: Num = 0, causal: bool = True) -> Num:
        """Of equal sequences; those of one token see all entries, or `most` each."""
        if not causal:
            return self.all_tokens * self.entries(ratio) / np.maximum(self.sequences, _NEARLY_NONE)
        if self.decode:
            return np.minimum(self.entries(ratio), self.sequences * most) if most else self.entries(ratio)
        equal = Segment(sequences=self.sequences, new_tokens=self.new_tokens, past_tokens=self._mean_past)
        return equal.entry_pairs(ratio, most)

    def block(self, rows: Num) -> Sums:
        """`rows` further drafted tokens of each sequence, after all tokens of this step."""
        drafted = self.sequences * rows
        return Sums(
            sequences=self.sequences,
            new_tokens=rows,
            past_tokens=self.past_tokens + self.new_tokens,
            all_tokens=drafted,
            all_pairs=rows * self.all_rows + drafted * (rows + 1.0) / 2.0,
            all_rows=self.all_rows + drafted,
        )

    @property
    def _mean_past(self) -> Num:
        """The past of equal sequences with the same number of pairs."""
        queries = np.maximum(self.all_tokens, _NEARLY_NONE)
        return np.maximum(self.all_pairs / queries - (self.new_tokens + 1.0) / 2.0, 0.0)

    def part(self, sequences: Num) -> Sums:
        """As many of the sequences, with their share of all sums; the means stay."""
        share = sequences / np.maximum(self.sequences, _NEARLY_NONE)
        return replace(
            self, sequences=sequences, all_tokens=sequences if self.decode else self.all_tokens * share,
            all_pairs=self.all_pairs * share, all_rows=self.all_rows * share,
        )  # fmt: skip


_NEARLY_NONE = 1e-9
"""A divisor instead of zero sequences or tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phase:
    """One step of the model.

    logit_rows: positions for which the output head runs; all_logits: these are all of them
    causal: mask of the attention
    """

    name: str
    segments: tuple[Segment, ...]
    logit_rows: Num
    all_logits: bool = False
    causal: bool = True

    @property
    def tokens(self) -> Num:
        """Rows of every GEMM."""
        return sum((s.tokens for s in self.segments), start=0.0)

    @property
    def sequences(self) -> Num:
        """Sequences in the batch."""
        return sum((s.sequences for s in self.segments), start=0.0)

    @property
    def decodes(self) -> bool:
        """Whether every sequence brings one token to the engine's generation kernels."""
        return all(segment.decode for segment in self.segments)

    @property
    def decoding(self) -> Num:
        """Number of such sequences."""
        return sum((s.sequences for s in self.segments if s.decode), start=0.0)

    @property
    def has_towers(self) -> bool:
        """Whether the towers' operations are part of the step, even if on no rows."""
        return any(segment.media is not None for segment in self.segments)

    @property
    def with_towers(self) -> Phase:
        """The same with the towers' weights, which no image or sound passes unless the step brings some."""
        if self.has_towers:
            return self
        return replace(self, segments=tuple(replace(segment, media=NO_MEDIA) for segment in self.segments))

    def encoding(self) -> Phase:
        """The step of an encoder that reads the sources of the prompts: every position sees every other."""
        segments = [Segment(sequences=s.sequences, new_tokens=s.source_tokens) for s in self.segments if not s.decode]
        return Phase(name=self.name, segments=tuple(segments) or (NOTHING,), logit_rows=0.0, causal=False)

    def drafting(self, rows: Num) -> Phase:
        """The step that drafts a block of `rows` tokens at once for each sequence; the first of them is known."""
        segments = tuple(segment.block(rows) for segment in self.segments)
        return Phase(name=self.name, segments=segments, logit_rows=self.sequences * (rows - 1.0), causal=False)

    def halves(self, split: Num) -> tuple[Phase, Phase]:
        """Two halves of every segment if split is 1, else everything and nothing; without the head."""
        pairs = [segment.halves(split) for segment in self.segments]
        first, second = zip(*pairs, strict=True)
        return replace(self, segments=first, logit_rows=0.0), replace(self, segments=second, logit_rows=0.0)


NOTHING = Segment(sequences=0.0, new_tokens=0.0)
"""No sequences: operations built for it hold weights and do no work."""

IDLE: Phase = Phase(name="idle", segments=(NOTHING,), logit_rows=0.0)
"""An empty step."""


def prefill(
    batch: Num,
    input_tokens: Num,
    past_tokens: Num = 0.0,
    *,
    all_logits: bool = False,
    causal: bool = True,
    media: Media | None = None,
    source_tokens: Num = 0.0,
) -> Phase:
    """The prompt of `batch` sequences; the head runs on the last position only, unless `all_logits`.

    media: images and sound of each, which tokens of the prompt stand for
    source_tokens: rows that an encoder makes of each sequence's source in the same step
    """
    segment = Segment(
        sequences=batch, new_tokens=input_tokens, past_tokens=past_tokens, media=media, source_tokens=source_tokens
    )
    return Phase(
        name="prefill",
        segments=(segment,),
        logit_rows=batch * input_tokens if all_logits else batch,
        all_logits=all_logits,
        causal=causal,
    )


def decode(batch: Num, context_tokens: Num, *, source_tokens: Num = 0.0) -> Phase:
    """One new token for each of `batch` sequences that hold `context_tokens`, and rows of an encoder, already."""
    segment = Segment(
        sequences=batch, new_tokens=1.0, past_tokens=context_tokens, decode=True, source_tokens=source_tokens
    )
    return Phase(name="decode", segments=(segment,), logit_rows=batch, all_logits=True)


def prompts_of(sequences: Num, tokens: Num, pairs: Num, rows: Num, ending: Num) -> Phase:
    """Prompts, or parts of them, by their sums; the head runs on the last position of those `ending` in this step.

    tokens: new ones; pairs: causal query-key pairs; rows: cache rows seen, past and new
    """
    live = np.maximum(sequences, _NEARLY_NONE)
    segment = Sums(
        sequences=sequences,
        new_tokens=tokens / live,
        past_tokens=(rows - tokens) / live,
        all_tokens=tokens,
        all_pairs=pairs,
        all_rows=rows,
    )
    return Phase(name="prefill", segments=(segment,), logit_rows=ending)


def generation_of(sequences: Num, rows: Num) -> Phase:
    """One new token for each of `sequences`, which read `rows` of the cache together, their new ones included."""
    segment = Sums(
        sequences=sequences,
        new_tokens=1.0,
        past_tokens=rows / np.maximum(sequences, _NEARLY_NONE) - 1.0,
        decode=True,
        all_tokens=sequences,
        all_pairs=rows,
        all_rows=rows,
    )
    return Phase(name="decode", segments=(segment,), logit_rows=sequences, all_logits=True)


def mixed(*phases: Phase) -> Phase:
    """Several phases in one step, as engines with chunked prefill run them."""
    return Phase(
        name="mixed",
        segments=tuple(s for phase in phases for s in phase.segments),
        logit_rows=sum((phase.logit_rows for phase in phases), start=0.0),
    )

"""What a step of the model has to process: sequences with new tokens and a past.

Every phase reduces to a few sums (rows of every GEMM, attended pairs, cache rows read), so one builder serves
prefill, decode, chunked and mixed batches; a ragged batch is a list of segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """Sequences alike: each brings `new_tokens` behind `past_tokens` that the cache already holds."""

    sequences: Num
    new_tokens: Num
    past_tokens: Num = 0.0
    decode: bool = False

    @property
    def tokens(self) -> Num:
        """Rows that this segment adds to every GEMM."""
        return self.sequences * self.new_tokens

    def pairs(self, window: Num = 0, causal: bool = True) -> Num:
        """Query-key pairs attended.

        Causal: query i of q sees past + i keys, or `window` of them if that is fewer (0 = no window);
        not causal: every query sees every key.
        """
        q, past = self.new_tokens, self.past_tokens
        if not causal:
            return self.sequences * q * (past + q)
        if not window:
            return self.sequences * (q * past + q * (q + 1.0) / 2.0)
        growing = np.minimum(np.maximum(window - past, 0.0), q)
        return self.sequences * (growing * past + growing * (growing + 1.0) / 2.0 + (q - growing) * window)

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


def prefill(
    batch: Num, input_tokens: Num, past_tokens: Num = 0.0, *, all_logits: bool = False, causal: bool = True
) -> Phase:
    """The prompt of `batch` sequences; the head runs on the last position only, unless `all_logits`."""
    segment = Segment(sequences=batch, new_tokens=input_tokens, past_tokens=past_tokens)
    return Phase(
        name="prefill",
        segments=(segment,),
        logit_rows=batch * input_tokens if all_logits else batch,
        all_logits=all_logits,
        causal=causal,
    )


def decode(batch: Num, context_tokens: Num) -> Phase:
    """One new token for each of `batch` sequences that hold `context_tokens` already."""
    segment = Segment(sequences=batch, new_tokens=1.0, past_tokens=context_tokens, decode=True)
    return Phase(name="decode", segments=(segment,), logit_rows=batch, all_logits=True)


def mixed(*phases: Phase) -> Phase:
    """Several phases in one step, as engines with chunked prefill run them."""
    return Phase(
        name="mixed",
        segments=tuple(s for phase in phases for s in phase.segments),
        logit_rows=sum((phase.logit_rows for phase in phases), start=0.0),
    )

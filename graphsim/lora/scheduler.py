"""How an engine fills its steps: the `scheduler` group of its profile.

It describes a server started without options. The numbers of tokens and sequences of a step are in `memory`, as they
determine the profiled step; whether prompts are split, share steps with generation and are planned ahead is in `host`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.sources import place, read_flags, read_numbers

ADMISSIONS = ("blocks", "whole_prompt", "estimated", "no_evict", "peak")
SHORTAGES = ("last", "retract", "pause")
POLICIES = ("fcfs", "priority", "lpm", "lof", "sjf")
EVICTIONS = ("lru", "lfu", "fifo", "size", "scored")
SENT = ("sampled", "read", "drafted")
FLAGS = ("", "vllm", "sglang", "trtllm")
"""The engine whose flags name its settings; "" for graphsim's own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineScheduler:
    """How an engine admits, runs and preempts requests, and how it handles their adapters.

    flags: the engine whose flag names its settings have
    admission: the blocks that must be free to admit a waiting request: the `blocks` of its next chunk, of its
        `whole_prompt`, an `estimated` part of its answer, everything that it and the running requests may need
        (`no_evict`), or the most that they will need at any one time (`peak`)
    watermark: share of the cache's blocks that admission keeps free while requests run
    shortage: which request gives up blocks: the `last` running one (recomputed), with `retract` those with the fewest
        output tokens and the longest prompts first, or with `pause` the last one
    policy: order of the waiting requests
    prefix_cache: whether blocks of earlier prompts are reused
    new_token_ratio: share of the running requests' remaining tokens for which an estimating engine reserves space at
        first; ratio_steps: number of decode steps in which it falls to least_ratio times that
    prefill_interval: steps between two admissions
    step_fits_model: whether a step holds as many tokens as the longest request, even above its limit
    step_cache_share: tokens of a step as a share of the cache's, for engines that state none
    step_sequences: most
        sequences, for engines whose `memory` states those of a graph, or none
    most_sequences, sequences_per_model: for a cache that holds more requests of the model's length: sequences per such
        request, at least step_sequences and at most most_sequences; 0 for no such rule
    captured_sizes: numbers of sequences of decode steps that are captured graphs: numbers, and ranges
        `first-last/step`; captured_per_sequence: the largest of them, as a multiple of the most sequences of a step; 0
        for no limit
    pads: whether a step is padded to the next captured size
    max_loras: most distinct adapters of a step, and slots; 0 for no limit
    shares_pool: whether adapters take blocks of the KV cache in place of slots (unified paging)
    max_cpu_loras: adapters kept in host memory; 0 for as many as slots, unless all are kept (keeps_all)
    skips: whether a request whose adapter has no slot is skipped; otherwise all requests after it wait
    eviction: which adapter is evicted first
    prefetch: number of waiting requests whose adapters are loaded in advance
    drain_after_s: seconds of waiting after which an adapter counts as starving, so that requests of others are held
        back; 0 for never
    sent_with_draft: when the tokens of a step leave the device for the client, where a draft model proposes those of
        the next one: as soon as they are `sampled`; when the draft has `read` the step's tokens, which is the first of
        its passes; or when it has `drafted`, after the last pass. sent_with_heads: the same with the model's own heads
        or layers for further tokens (EAGLE, MTP)
    sources: the source of each field; "inherited from NAME: …" for a field taken from another profile
    """

    flags: str = ""
    admission: str = "blocks"
    watermark: float = 0.0
    shortage: str = "last"
    policy: str = "fcfs"
    prefix_cache: bool = False
    new_token_ratio: float = 0.7
    least_ratio: float = 0.14
    ratio_steps: float = 600.0
    prefill_interval: float = 1.0
    step_fits_model: bool = False
    step_cache_share: float = 0.0
    step_sequences: float = 0.0
    most_sequences: float = 0.0
    sequences_per_model: float = 0.0
    captured_sizes: tuple[int, ...] = ()
    captured_per_sequence: float = 0.0
    pads: bool = True
    max_loras: float = 1.0
    max_cpu_loras: float = 0.0
    keeps_all: bool = False
    shares_pool: bool = False
    skips: bool = True
    eviction: str = "lru"
    prefetch: float = 0.0
    drain_after_s: float = 0.0
    sent_with_draft: str = "drafted"
    sent_with_heads: str = "drafted"
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)


_NUMBERS = {
    "watermark": ("", 0.0, 0.99), "new_token_ratio": ("", 0.0, 1.0), "least_ratio": ("", 0.0, 1.0),
    "ratio_steps": ("", 1.0, 1e6), "prefill_interval": ("", 1.0, 1e4), "step_cache_share": ("", 0.0, 1.0),
    "step_sequences": ("", 0.0, 1e6), "most_sequences": ("", 0.0, 1e6), "sequences_per_model": ("", 0.0, 1e6),
    "captured_per_sequence": ("", 0.0, 100.0), "max_loras": ("", 0.0, 1e6), "max_cpu_loras": ("", 0.0, 1e9),
    "prefetch": ("", 0.0, 1e6), "drain_after_s": ("s", 0.0, 1e6),
}  # fmt: skip
_FLAGS = ("prefix_cache", "step_fits_model", "pads", "keeps_all", "shares_pool", "skips")
_CHOICES = {
    "flags": FLAGS, "admission": ADMISSIONS, "shortage": SHORTAGES, "policy": POLICIES, "eviction": EVICTIONS,
    "sent_with_draft": SENT, "sent_with_heads": SENT,
}  # fmt: skip


def read_scheduler(fields: Fields, base: EngineScheduler, inherited: Mapping[str, str]) -> EngineScheduler:
    """The `scheduler` group of a profile's file, based on that of its base; a field may be `{value: …, source: …}`.

    inherited: sources of the fields inherited from the base
    Problems are noted in `fields`: a number out of its bounds, an unknown word, a list without sizes.
    """
    found: dict[str, Any] = {}
    sources = dict(inherited)
    for key, choices in _CHOICES.items():
        at, name = place(fields, key, sources)
        found[key] = at.text(name, getattr(base, key), choices)
    found |= read_numbers(fields, _NUMBERS, base, sources)
    found |= read_flags(fields, _FLAGS, base, sources)
    at, name = place(fields, "captured_sizes", sources)
    found["captured_sizes"] = _sizes(at, name) if name in at else base.captured_sizes
    return replace(base, **found, sources=sources)


def _sizes(fields: Fields, key: str) -> tuple[int, ...]:
    sizes = set[int]()
    for entry in fields.sequence(key):
        stretch = _stretch(str(entry))
        if not stretch:
            fields.problem(key, f"is not allowed: expected numbers and ranges such as '8-248/8', found {entry!r}")
            return ()
        sizes.update(stretch)
    return tuple(sorted(sizes))


def _stretch(text: str) -> range:
    """The numbers of `4` or `first-last/step`; none if it is neither."""
    match = _STRETCH.fullmatch(text)
    if match is None:
        return range(0)
    first, last, step = (int(part) if part else None for part in match.groups())
    if not first or step == 0:
        return range(0)
    return range(first, (first if last is None else last) + 1, step or 1)


_STRETCH = re.compile(r"(\d{1,6})(?:-(\d{1,6})(?:/(\d{1,6}))?)?")

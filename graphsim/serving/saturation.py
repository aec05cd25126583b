"""How near a server's load is to the most that it could take, told from one run of it.

A step takes a + b * generating sequences + c * new prompt tokens: the line through the run's own steps (least squares).
With the run's mix of prompts and answers, the server generates fastest at the largest batch that max_num_seqs, the KV
cache and max_num_batched_tokens let it have; the load is the rate at which it did generate, over that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.serving.rules import Rules

Floats = np.ndarray[Any, np.dtype[np.float64]]

SEQUENCES, CACHE, TOKENS = "max_num_seqs", "KV cache", "max_num_batched_tokens"
LEAST_SPREAD = 0.1
"""Of the batch, in parts of its mean, from which its part in the time of a step can be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """load: share of what the server could take; limit: what would be full then; sequences: their number at once."""

    load: float
    limit: str
    sequences: float


def saturation_of(columns: dict[str, Floats], running: Floats, rules: Rules, span: tuple[float, float]) -> Saturation:
    """Saturation of the steps that begin in a time span.

    running: sequences in the engine in each run of steps
    """
    kept = (columns["start_s"] >= span[0]) & (columns["start_s"] < span[1]) & (columns["seconds"] > 0)
    rows = {name: values[kept] for name, values in columns.items()}
    running, seconds = running[kept], rows["seconds"]
    generated = float(rows["batch"] @ rows["steps"])
    if not generated > 0:
        return Saturation(load=0.0, limit=SEQUENCES, sequences=float(rules.max_num_seqs))
    prompts = float(rows["prompt_tokens"].sum()) / generated
    at_once = float(running @ seconds) / float(seconds.sum())
    cache = float(rows["kv_blocks"] @ seconds) / float(seconds.sum()) / max(rules.kv_blocks, 1)
    most = {
        SEQUENCES: float(rules.max_num_seqs), CACHE: at_once / cache if cache > 0 else np.inf,
        TOKENS: rules.max_num_batched_tokens / (1.0 + prompts),
    }  # fmt: skip
    limit = min(most, key=lambda name: most[name])
    start_s, sequence_s, token_s = _line(rows)
    step_s = start_s + (sequence_s + token_s * prompts) * most[limit]
    rate = generated / max(span[1] - span[0], 1e-12)
    load = rate * step_s / most[limit] if sequence_s or token_s else at_once / most[limit]
    return Saturation(load=max(load, min(at_once / most[limit], 1.0)), limit=limit, sequences=most[limit])


def _line(rows: dict[str, Floats]) -> tuple[float, float, float]:
    """a, b and c of the steps; the whole time as a where batches are too much alike to tell."""
    steps = np.maximum(rows["steps"], 1.0)
    step_s = (rows["seconds"] - rows["stall_s"]) / steps
    batch, tokens = rows["batch"], rows["prompt_tokens"] / steps
    mean = np.average(batch, weights=steps)
    if np.sqrt(np.average((batch - mean) ** 2, weights=steps)) < LEAST_SPREAD * mean:
        return float(np.average(step_s, weights=steps)), 0.0, 0.0
    design = np.column_stack([np.ones(len(batch)), batch, tokens]) * np.sqrt(steps)[:, None]
    found = np.linalg.lstsq(design, step_s * np.sqrt(steps), rcond=None)[0]
    return tuple(float(max(value, 0.0)) for value in found)  # type: ignore[return-value]

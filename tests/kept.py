"""What a model keeps of a sequence between steps, in bytes, as the operations of its graphs say."""

from __future__ import annotations

from dataclasses import dataclass

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.phase import decode
from graphsim.ops import KvCache
from graphsim.ops.precision import load_precision

BF16 = load_precision("bf16")

ELEMENT, STATE = 2, 4
"""Bytes of a cached value and of the last taps of a convolution in bf16, and of a value of a recurrent state."""

START = 16
"""Tokens at which growth from the first token on is measured; beyond a window, `STRIDE` of them in all."""

STRIDE = 128
"""A multiple of the tokens that caches of compressed rows make one of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bytes of one sequence.

    token, far_token: that a token adds at the start, and when every window is full
    source_row: of a row of an encoder, in all layers that attend to it
    fixed: what does not grow
    """

    token: float
    far_token: float
    source_row: float
    fixed: float


def _bytes(config: gs.ModelConfig, tokens: float, source: bool = False) -> float:
    graph = build(config, decode(1.0, tokens - 1.0, source_tokens=1.0), BF16)
    ops = ((op, times) for _, op, times in walk(graph))
    of_source = ((isinstance(op, KvCache) and op.source, op, times) for op, times in ops)
    return sum(float(op.state_bytes) * times for from_source, op, times in of_source if from_source is source)


def kept_by(config: gs.ModelConfig, window: int) -> Kept:
    """What the graphs of decoding steps say; `window` is the longest of its windows, 0 for none."""
    first, second = _bytes(config, START), _bytes(config, 2 * START)
    token = (second - first) / START
    near, far = _bytes(config, window + STRIDE), _bytes(config, window + 2 * STRIDE)
    return Kept(
        token=token,
        far_token=(far - near) / STRIDE,
        source_row=_bytes(config, START, source=True),
        fixed=first - START * token,
    )


def kept_of(fact: dict[str, str]) -> Kept:
    """A row of tests/data/kv_facts.csv, elements in bytes."""
    taps, state = float(fact["taps"]) * ELEMENT, float(fact["state"]) * STATE
    return Kept(
        token=float(fact["token"]) * ELEMENT,
        far_token=float(fact["far_token"]) * ELEMENT,
        source_row=float(fact["source_row"]) * ELEMENT,
        fixed=taps + state,
    )

"""RWKV-4 (arXiv 2305.13048, section 3): linear attention with a decay per channel, and a gated MLP.

Both mix each token with the one before it, which is part of the state; as transformers' `modeling_rwkv.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, Compute, Scan, Sharding
from graphsim.units import Num

_RUNNING = 3
"""State values per channel: numerator, denominator and the largest exponent so far, kept in fp32."""


def _shifted(scope: Scope, x: str) -> str:
    """The tokens shifted by one; the last of each sequence is stored for the next step."""
    elems = scope.tokens * scope.hidden
    kept = scope.phase.sequences * scope.hidden
    return scope.add("token_shift", Compute(elems=elems, reads=elems, state_elems=kept), [x])


def _mixed(scope: Scope, name: str, x: str, shifted: str) -> str:
    """A learned mean of each token and the one before it, channel by channel."""
    mix = Activation(elems=scope.tokens * scope.hidden, reads=2.0, steps=3.0, learned=scope.hidden)
    return scope.add(f"mix_{name}", mix, [x, shifted])


@dataclass(frozen=True, slots=True, kw_only=True)
class RwkvAttention(Layer):
    """Time mixing: receptance times the decaying mean of values, weighted by the exponentials of keys."""

    width: int
    module: str = "attention"

    def build(self, scope: Scope, x: str) -> str:
        """shift -> key, value, receptance -> WKV -> gate -> output."""
        shifted = _shifted(scope, x)
        key, value, receptance = [self._column(scope, part, x, shifted) for part in ("key", "value", "receptance")]
        scan = Scan(
            **scope.along,
            channels=self.width,
            state=_RUNNING,
            inputs=2 * self.width,
            learned=2 * self.width,
        )
        out = scope.add("wkv", scan, [key, value])
        gate = Activation(elems=scope.tokens * self.width, reads=2.0, steps=4.0)
        gated = scope.add("gate", gate, [receptance, out])
        output = Projection(
            name=f"{self.module}.output",
            n=scope.hidden,
            k=self.width,
            split=Sharding.ROW,
            tags=("attn", "out proj"),
        )
        return scope.linear(output, gated)

    def _column(self, scope: Scope, part: str, x: str, shifted: str) -> str:
        mixed = _mixed(scope, part, x, shifted)
        tags = ("attn", "qkv", "query" if part == "receptance" else part)
        return _linear(scope, f"{self.module}.{part}", self.width, scope.hidden, mixed, tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class RwkvFeedForward(Layer):
    """Channel mixing: value(relu(key x)^2), times the sigmoid of the receptance."""

    intermediate: int
    module: str = "feed_forward"

    def build(self, scope: Scope, x: str) -> str:
        """shift -> key -> squared ReLU -> value, gated by receptance."""
        shifted = _shifted(scope, x)
        mixed = _mixed(scope, "key", x, shifted)
        key = _linear(scope, f"{self.module}.key", self.intermediate, scope.hidden, mixed, ("ffn", "up", "key"))
        act = scope.add("act", Activation(elems=scope.tokens * self.intermediate, steps=2.0), [key])
        down = Projection(
            name=f"{self.module}.value",
            n=scope.hidden,
            k=self.intermediate,
            split=Sharding.ROW,
            tags=("ffn", "down", "value"),
        )
        value = scope.linear(down, act)
        mixed = _mixed(scope, "receptance", x, shifted)
        receptance = _linear(scope, f"{self.module}.receptance", scope.hidden, scope.hidden, mixed, ("ffn", "gate"))
        gate = Activation(elems=scope.tokens * scope.hidden, reads=2.0, steps=4.0)
        return scope.add("gate", gate, [Value(receptance), Value(value)])


def _linear(scope: Scope, name: str, n: Num, k: Num, x: str, tags: tuple[str, ...]) -> str:
    return scope.linear(Projection(name=name, n=n, k=k, split=Sharding.COLUMN, tags=tags), x)

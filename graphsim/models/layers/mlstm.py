"""The matrix memory of xLSTM-7B (mLSTM, arXiv 2405.04517, section 2.3; arXiv 2503.13427, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, Norm, Part, Scan, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixMemory(Layer):
    """Queries, keys and values with one input and one forget gate a head; a norm of each head, an output gate.

    key_width, value_width: of all heads together
    fused: q, k, v and the output gate are one weight, and the two gates another
    """

    heads: int
    key_width: int
    value_width: int
    bias: bool = False
    fused: bool = False
    module: str = "mlstm_layer"

    def build(self, scope: Scope, x: str) -> str:
        """Projections -> memory -> norm -> gate -> out_proj."""
        inputs, gate = self._project(scope, x)
        keys, values = self.key_width, self.value_width
        per_key, per_value = keys / self.heads, values / self.heads
        memory = Scan(
            **scope.along,
            channels=values,
            state=per_key + (per_key + 1.0) / per_value,  # the memory, and its normaliser and largest gate of each head
            inputs=2 * keys + values + 2 * self.heads,
            matrix=True,
        )
        out = scope.add("matrix_memory", memory, inputs)
        norm = Norm(
            rows=scope.tokens * self.heads,
            width=per_value,
            vectors=self.heads * (2.0 if self.bias else 1.0),
            local=True,
            units=self.heads,
            own=True,
            module=f"{scope.prefix}{self.module}.multihead_norm",
        )
        out = scope.add("multihead_norm", norm, [out])
        product = Activation(elems=scope.tokens * values, reads=2.0, steps=4.0)
        out = scope.add("output_gate", product, [out, gate])
        down = Projection(
            name=f"{self.module}.out_proj",
            n=scope.hidden,
            k=values,
            split=Sharding.ROW,
            units=self.heads,
            bias=self.bias,
            tags=("attn", "out proj"),
        )
        return scope.linear(down, out)

    def _project(self, scope: Scope, x: str) -> tuple[list[Value], Value]:
        """The inputs of the memory, and the output gate."""
        widths = {"q": self.key_width, "k": self.key_width, "v": self.value_width, "gate": self.value_width}
        if self.fused:
            both = self._column(scope, "qkv_opreact", x, widths, self.bias)
            gates = self._column(scope, "ifgate_preact", x, {"i": self.heads, "f": self.heads}, True)
            return [Value(both, ("q", "k", "v")), Value(gates)], Value(both, ("gate",))
        names = {"q": "q", "k": "k", "v": "v", "gate": "ogate_preact"}
        made = {part: self._column(scope, name, x, {part: widths[part]}, self.bias) for part, name in names.items()}
        small = [self._column(scope, f"{part}gate_preact", x, {part: self.heads}, True) for part in "if"]
        return [Value(node) for node in (made["q"], made["k"], made["v"], *small)], Value(made["gate"])

    def _column(self, scope: Scope, name: str, x: str, widths: dict[str, int], bias: bool) -> str:
        parts = tuple(Part(name=part, width=width, units=self.heads) for part, width in widths.items())
        projection = Projection(
            name=f"{self.module}.{name}",
            n=sum(widths.values()),
            k=scope.hidden,
            split=Sharding.COLUMN,
            units=self.heads,
            bias=bias,
            tags=("attn", "qkv"),
            parts=parts if len(parts) > 1 else (),
        )
        return scope.linear(projection, x)

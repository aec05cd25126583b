"""Drafts without attention: heads on the target's last state, one for each further token."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Projection, Scope
from graphsim.models.layers.drafts import target_states
from graphsim.models.layers.ends import Head, Stem
from graphsim.ops import Activation, Add, Embedding, Gemm, Norm, Sample, Sharding, TakeRows
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class StateStem(Stem):
    """The unchanged target states."""

    def build(self, scope: Scope, x: str = "") -> str:
        """They are in memory already."""
        return target_states(scope, scope.hidden)


def last_states(scope: Scope, x: str) -> str:
    """The states of the positions after which tokens are drafted."""
    if scope.phase.all_logits:
        return x
    return scope.add("last_tokens", TakeRows(rows=scope.phase.logit_rows, width=scope.hidden), [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class MedusaHeads(Head):
    """Medusa (arXiv 2401.10774, section 2.1): `heads` times residual layers and an output head, all on one state.

    deep: residual layers of each head
    fc_bias: of these
    one_head: all share one output head (vLLM 0.11, `models/medusa.py`, original_lm_head)
    """

    heads: int
    deep: int
    fc_bias: bool = False
    one_head: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """State -> (+ act(layer)) ... -> logits -> token, for each head."""
        rows, x = scope.phase.logit_rows, last_states(scope, x)
        out = x
        for i in range(self.heads):
            out = self._block(scope, x, i, rows)
            shared = self.one_head and i > 0
            module = "lm_head" if self.one_head else f"lm_heads.{i}"
            out = output_head(scope, out, module, self.vocab_size, rows, scope.hidden, shared=shared)
        return out

    def _block(self, scope: Scope, x: str, head: int, rows: Num) -> str:
        elems = rows * scope.hidden
        for j in range(self.deep):
            name = f"blocks.{head}.layers.{j}"
            layer = Projection(name=name, n=scope.hidden, k=scope.hidden, bias=self.fc_bias)
            out = scope.linear(layer, x, m=rows, name=name)
            out = scope.add(f"{name}.act", Activation(elems=elems, steps=4.0), [out])
            x = scope.add(f"{name}.residual", Add(elems=elems), [out, x])
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculatorHeads(Head):
    """An MLP speculator (arXiv 2404.19124, section 2): `stages` one after another, each reads the token before it.

    inner: width of its states
    one_stage: all stages have the same weights except for the first projection
    scaled: the target's state is normalised first (vLLM 0.6, `models/mlp_speculator.py`)
    """

    stages: int
    inner: int
    one_stage: bool = False
    scaled: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """(state, token) -> projection + embedding -> norm -> act -> logits -> token, for each stage."""
        rows, state, width = scope.phase.logit_rows, last_states(scope, x), scope.hidden
        if self.scaled:
            state = scope.add("ln0", Norm(rows=rows, width=width, vectors=0), [state])
        out = state
        for i in range(self.stages):
            again = self.one_stage and i > 0
            state = self._state(scope, state, i, width, rows, again)
            out = output_head(scope, state, f"head.{i}", self.vocab_size, rows, self.inner, shared=again)
            width = float(self.inner)
        return out

    def _state(self, scope: Scope, state: str, i: int, width: Num, rows: Num, again: bool) -> str:
        elems = rows * self.inner
        table = Embedding(tokens=rows, entries=self.vocab_size, width=self.inner, shared=again, module=f"emb.{i}")
        token = scope.add(f"emb.{i}", table, [])
        down = Projection(name=f"proj.{i}", n=self.inner, k=width, shared=self.one_stage and i > 1)
        out = scope.linear(down, state, m=rows, name=f"proj.{i}")
        out = scope.add(f"add.{i}", Add(elems=elems), [out, token])
        norm = Norm(rows=rows, width=self.inner, vectors=0 if again else 2, module=f"ln.{i}")
        out = scope.add(f"ln.{i}", norm, [out])
        return scope.add(f"act.{i}", Activation(elems=elems, steps=4.0), [out])


def output_head(scope: Scope, x: str, module: str, vocab: int, rows: Num, width: Num, *, shared: bool = False) -> str:
    """Logits and a token of each row."""
    logits = Gemm(
        m=rows,
        n=vocab,
        k=width,
        split=Sharding.COLUMN,
        shared=shared,
        weights=scope.format_of(module, scope.activations),
        module=module,
        linear=False,
        head=True,
    )
    return scope.add("sample", Sample(rows=rows, vocab=vocab), [scope.add(module, logits, [x])])

"""Drafts that read the hidden states of a target model in addition to its tokens: EAGLE 1 to 3, multi-token prediction.

EAGLE: arXiv 2401.15077; EAGLE-3: arXiv 2503.01840; multi-token prediction: DeepSeek-V3, arXiv 2412.19437, section 2.2.
Most drafts use the target's embedding and output head: these run in the draft's steps but do not count as its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Add, Concatenate, Embedding, Input, Norm
from graphsim.units import Num


def target_states(scope: Scope, width: Num) -> str:
    """The target's states of each token, which are already in memory."""
    return scope.add("target_states", Input(elems=scope.tokens * width), [])


def target_embedding(scope: Scope, vocab_size: int, module: str) -> str:
    """A look-up of the tokens in the target's embedding."""
    table = Embedding(tokens=scope.tokens, entries=vocab_size, width=scope.hidden, shared=True, module=module)
    return scope.add("embed_tokens", table, [])


def side_by_side(scope: Scope, left: str, right: str) -> str:
    """Two values of the hidden size, concatenated to rows of twice the width."""
    return scope.add("concatenate", Concatenate(elems=2.0 * scope.tokens * scope.hidden), [left, right])


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedFeatures(Layer):
    """States of several layers of the target, side by side, down to the hidden size.

    features: how many states; 1 = the values are taken as they are, without a projection
    width: of one of them
    joint_norm, each_norm: module of a norm of all of them at once, path of the norms of each
    after: a norm after the projection
    """

    features: int
    width: int
    bias: bool = False
    module: str = "fc"
    joint_norm: str = ""
    each_norm: str = ""
    after: NormLayer | None = None

    def build(self, scope: Scope, x: str = "") -> str:
        """states -> (norms) -> projection -> (norm)."""
        wide = self.features * self.width
        out = target_states(scope, wide)
        if self.joint_norm:
            out = NormLayer(name=self.joint_norm, width=wide).build(scope, out)
        if self.each_norm:
            out = _normed_apart(scope, out, self.each_norm, self.features, self.width)
        if self.features > 1:
            out = scope.linear(Projection(name=self.module, n=scope.hidden, k=wide, bias=self.bias), out)
        return self.after.build(scope, out) if self.after else out


def _normed_apart(scope: Scope, x: str, path: str, count: int, width: int) -> str:
    """Each of `count` slices of the rows, normalised separately."""
    norm = Norm(rows=scope.tokens * count, width=width, vectors=count, module=f"{scope.prefix}{path}")
    return scope.add(path, norm, [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStem(Stem):
    """EAGLE-3 before its first layer, which looks the tokens up itself: the target's states alone."""

    features: FusedFeatures
    module: str = "embed_tokens"

    def build(self, scope: Scope, x: str = "") -> str:
        """States of the target -> values of the residual stream."""
        return self.features.build(scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDraftLayer(Layer):
    """EAGLE-3's first layer: attention reads the token and the target's state side by side, each after a norm.

    The target's state is the residual, before its norm or after it, which costs the same (vLLM 0.11,
    `models/llama_eagle3.py`, LlamaDecoderLayer; SGLang 0.5, `models/llama_eagle3.py`).
    """

    vocab_size: int
    attention: SelfAttention
    mlp: Mlp
    table: str = "embed_tokens"

    def build(self, scope: Scope, x: str) -> str:
        """norm(token), norm(state) -> attention -> + state -> norm -> MLP -> sum."""
        tokens = target_embedding(scope, self.vocab_size, self.table)
        tokens = NormLayer(name="input_layernorm").build(scope, tokens)
        states = NormLayer(name="hidden_norm").build(scope, x)
        out = self.attention.build(scope, side_by_side(scope, tokens, states))
        elems = scope.tokens * scope.hidden
        out = scope.add("attn_residual", Add(elems=elems), [out, x])
        fed = self.mlp.build(scope, NormLayer(name="post_attention_layernorm").build(scope, out))
        return scope.add("mlp_residual", Add(elems=elems), [fed, out])


@dataclass(frozen=True, slots=True, kw_only=True)
class JoiningStem(Stem):
    """A token and the target's last state of the one before it, side by side, projected to the hidden size.

    bias: of the projection
    token_norm, state_norm: modules of norms before it, where there are some
    """

    projection: str = "fc"
    bias: bool = False
    token_norm: str = ""
    state_norm: str = ""
    module: str = "embed_tokens"

    def build(self, scope: Scope, x: str = "") -> str:
        """Token ids and states of the target -> values of the residual stream."""
        token = target_embedding(scope, self.vocab_size, self.module)
        state = target_states(scope, scope.hidden)
        token = NormLayer(name=self.token_norm).build(scope, token) if self.token_norm else token
        state = NormLayer(name=self.state_norm).build(scope, state) if self.state_norm else state
        down = Projection(name=self.projection, n=scope.hidden, k=2 * scope.hidden, bias=self.bias)
        return scope.linear(down, side_by_side(scope, token, state))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetHead(Head):
    """The target's output head, which never counts as the draft's weights."""

    def build(self, scope: Scope, x: str) -> str:
        """Residual stream -> logits -> token ids."""
        given = {each.name: getattr(self, each.name) for each in fields(Head)}
        return Head(**{**given, "tied": True}).build(scope, x)

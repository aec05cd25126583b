"""Methods of transformers' modules (5.24) that loop over tokens or chunks, rewritten with one operator each.

Projections, norms and gates are the modules' own, called in the same order. RWKV's methods are included because the
original decode step is correct for a single sequence only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphsim.models.capture.operators import Recurrence, causal_conv, scan

Tensor = Any


def lightning_attention(
    layer: Any,
    hidden_states: Tensor,
    position_embeddings: Any = None,
    attention_mask: Tensor | None = None,
    cache: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Replacement of `MiniMaxLightningAttention.forward`: linear attention with a fixed decay per head."""
    sequences, tokens, _width = hidden_states.shape
    heads, width = layer.num_attention_heads, layer.head_dim
    qkv = layer.act_fn(layer.qkv_proj(hidden_states))
    if attention_mask is not None:
        qkv = (qkv * attention_mask[:, :, None]).to(qkv.dtype)
    qkv = qkv.reshape(sequences, tokens, heads, 3 * width)
    query, key, value = (part.transpose(1, 2) for part in torch.split(qkv, width, dim=3))
    before = None if cache is None else cache.get_linear_cache(layer.layer_idx)
    recurrence = Recurrence(
        kind="lightning_attention",
        channels=heads * width,
        state_shape=(heads, width, width),
        state_dtype=torch.promote_types(value.dtype, layer.slope_rate.dtype),
        matrix=True,
    )
    out, state = scan(recurrence, value, (query, key), (), (before,))
    out = out.transpose(1, 2).reshape(sequences, tokens, heads * width)
    out = torch.sigmoid(layer.output_gate(hidden_states)) * layer.norm(out)
    out = layer.out_proj(out)
    if cache is not None:
        cache.set_linear_cache(layer.layer_idx, state)
    return out, state


def linear_recurrence(
    layer: Any,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: Any = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Replacement of `RecurrentGemmaRglru._rnn_scan`; the gates are computed outside of it."""
    channels = int(hidden_states.shape[2])
    recurrence = Recurrence(
        kind="rg_lru", channels=channels, state_shape=(channels,), state_dtype=acc_dtype, matrix=False
    )
    return scan(recurrence, hidden_states, (recurrent_gate,), (layer.recurrent_param,), (recurrent_states,))


def recurrent_block(
    layer: Any,
    input_states: Tensor,
    position_ids: Tensor,
    attention_mask: Tensor | None = None,
    use_cache: bool = True,
    **_: Any,
) -> tuple[Tensor, None]:
    """Replacement of `RecurrentGemmaRecurrentBlock.forward`, which keeps its states as attributes of the modules."""
    decoding = use_cache and input_states.shape[1] == 1
    if not decoding:
        layer.conv1d_state, layer.rg_lru.recurrent_states = None, None
    y = layer.act_fn(layer.linear_y(input_states))
    x = layer.linear_x(input_states).transpose(1, 2)
    conv = layer.conv_1d
    x, state = causal_conv(x, conv.weight.squeeze(1), conv.bias, layer.conv1d_state, kept=layer.conv1d_width - 1)
    if use_cache:
        layer.conv1d_state = state
    x = layer.rg_lru(x.transpose(1, 2), position_ids)
    if not use_cache:
        layer.rg_lru.recurrent_states = None
    return layer.linear_out(x * y), None


def matrix_memory(
    backend: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    igate: Tensor,
    fgate: Tensor,
    c_initial: Tensor | None = None,
    n_initial: Tensor | None = None,
    m_initial: Tensor | None = None,
    return_last_states: bool | None = None,
    mode: str | None = None,
) -> Any:
    """Replacement of `xLSTMBackend.forward`; the state is memory, normaliser and largest gate of each head."""
    heads, keys, values = int(key.shape[1]), int(key.shape[3]), int(value.shape[3])
    recurrence = Recurrence(
        kind="matrix_memory",
        channels=heads * values,
        state_shape=(heads, keys * values + keys + 1),
        state_dtype=getattr(torch, backend.config.inference_state_dtype),
        matrix=True,
    )
    out, state = scan(recurrence, value, (query, key, igate, fgate), (), (c_initial, n_initial, m_initial))
    memory, normaliser, largest = state.split([keys * values, keys, 1], dim=-1)
    training = "train" in (mode or backend.config.mode)
    wanted = return_last_states if return_last_states is not None else backend.config.return_last_states
    if training and not wanted:
        return out
    return out, (memory.unflatten(-1, (keys, values)), normaliser, largest)


def time_mixing(layer: Any, hidden: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Replacement of `RwkvSelfAttention.extract_key_value`, whose decode step mixes the tokens of all sequences."""
    kept = None if state is None else state[1][:, :, layer.layer_id]
    previous = _previous(layer, hidden, kept)
    key = layer.key(_mixed(layer.time_mix_key, hidden, previous))
    value = layer.value(_mixed(layer.time_mix_value, hidden, previous))
    receptance = torch.sigmoid(layer.receptance(_mixed(layer.time_mix_receptance, hidden, previous)))
    if kept is not None:
        kept.copy_(hidden[:, -1])
    return receptance, key, value, state


def channel_mixing(layer: Any, hidden: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Replacement of `RwkvFeedForward.forward`, which has the same defect."""
    kept = None if state is None else state[0][:, :, layer.layer_id]
    previous = _previous(layer, hidden, kept)
    value = layer.value(torch.square(torch.relu(layer.key(_mixed(layer.time_mix_key, hidden, previous)))))
    receptance = torch.sigmoid(layer.receptance(_mixed(layer.time_mix_receptance, hidden, previous)))
    if kept is not None:
        kept.copy_(hidden[:, -1])
    return receptance * value, state


def _previous(layer: Any, hidden: Tensor, kept: Tensor | None) -> Tensor:
    """The hidden states shifted by one token; `kept` [sequences, width] precedes the first token."""
    if kept is not None and hidden.shape[1] == 1:
        return kept[:, None]
    previous = layer.time_shift(hidden)
    if kept is not None:
        previous[:, 0] = kept
    return previous


def _mixed(share: Tensor, hidden: Tensor, previous: Tensor) -> Tensor:
    return hidden * share + previous * (1 - share)


METHODS: dict[str, dict[str, Callable[..., Any]]] = {
    "MiniMaxLightningAttention": {"forward": lightning_attention},
    "RecurrentGemmaRglru": {"_rnn_scan": linear_recurrence},
    "RecurrentGemmaRecurrentBlock": {"forward": recurrent_block},
    "RwkvSelfAttention": {"extract_key_value": time_mixing},
    "RwkvFeedForward": {"forward": channel_mixing},
    "xLSTMBackend": {"forward": matrix_memory},
}
"""Replacements by class and method."""

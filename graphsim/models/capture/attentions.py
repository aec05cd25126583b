"""Softmax attention called through transformers' interfaces or PyTorch's own functions, one row per call."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.replacing import loaded, replaced
from graphsim.models.capture.rows import expression

INTERFACES = (
    "eager_attention_forward",
    "sdpa_attention_forward",
    "flex_attention_forward",
    "simple_eager_attention_forward",
)
"""Functions with transformers' signature (module, query, key, value, mask, …)."""

FAR = 1 << 16
"""The query position at which a mask function is evaluated to determine its window."""


def wrap_attentions(recorder: Recorder, stack: ExitStack) -> None:
    """Record each call of attention as one row until the stack closes."""
    _wrap_interfaces(recorder, stack)
    functional: Any = torch.nn.functional
    sdpa = functional.scaled_dot_product_attention
    stack.enter_context(replaced(functional, "scaled_dot_product_attention", dot_product_attention(recorder, sdpa)))
    seen = _seen_inside(functional.multi_head_attention_forward)
    stack.enter_context(replaced(functional, "multi_head_attention_forward", seen))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    stack.callback(torch.backends.mha.set_fastpath_enabled, fast)


def _wrap_interfaces(recorder: Recorder, stack: ExitStack) -> None:
    registered = getattr(loaded("transformers.modeling_utils"), "ALL_ATTENTION_FUNCTIONS", None)
    if registered is None:
        return
    mapping = type(registered)._global_mapping
    before = dict(mapping)
    stack.callback(lambda: (mapping.clear(), mapping.update(before)))
    for name, function in before.items():
        mapping[name] = interface(recorder, function)


def _seen_inside(function: types.FunctionType) -> types.FunctionType:
    """PyTorch's multi-head attention with its inner calls visible to a function mode, which would see only one call."""
    known = {**function.__globals__, "has_torch_function": lambda _: False}
    inside = types.FunctionType(
        function.__code__, known, function.__name__, function.__defaults__, function.__closure__
    )
    inside.__kwdefaults__ = function.__kwdefaults__
    return inside


def _sizes(query: Any, key: Any) -> dict[str, Any]:
    """Numbers of heads, KV heads and sequences, and of queries and keys per sequence.

    query, key: tensors of shape [..., heads, tokens, width]
    """
    heads = query.shape[-3] if query.dim() > 3 else 1
    sequences = [expression(n) for n in (query.shape[:-3] if query.dim() > 3 else query.shape[:-2])]
    return {
        "heads": expression(heads),
        "kv_heads": expression(key.shape[-3]) if key.dim() > 3 else 1,
        "sequences": tuple(sequences),
        "queries": expression(query.shape[-2]),
        "keys": expression(key.shape[-2]),
    }


def interface(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper that records one of transformers' attention functions as a row.

    The row's inputs are queries, keys, values and the further terms of the scores: mask, position biases, sinks.
    """

    @functools.wraps(function)
    def call(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        sinks = kwargs.get("s_aux")
        taken = [query, key, value, attention_mask, kwargs.get("position_bias"), sinks]
        known = {
            "window": kwargs.get("sliding_window", getattr(module, "sliding_window", None)) or 0,
            "soft_cap": bool(kwargs.get("softcap") or 0),
            "sinks": sinks is not None,
            "is_causal": _first(kwargs.get("is_causal"), getattr(module, "is_causal", None), False),
            "mask": recorder.source_of(attention_mask) if isinstance(attention_mask, torch.Tensor) else "",
        }
        return recorder.whole(
            "attention", function.__name__,
            lambda: function(module, query, key, value, attention_mask, *args, **kwargs),
            [tensor for tensor in taken if isinstance(tensor, torch.Tensor)], **known, **_sizes(query, key),
        )  # fmt: skip

    return call


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def dot_product_attention(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper that records PyTorch's `scaled_dot_product_attention` as a row."""

    @functools.wraps(function)
    def scaled_dot_product_attention(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        masked = isinstance(attn_mask, torch.Tensor)
        known = {"is_causal": bool(is_causal), "mask": recorder.source_of(attn_mask) if masked else ""}
        return recorder.whole(
            "attention", function.__name__,
            lambda: function(query, key, value, attn_mask, dropout_p, is_causal, **kwargs),
            [query, key, value] + ([attn_mask] if masked else []), **known, **_sizes(query, key),
        )  # fmt: skip

    return scaled_dot_product_attention


def flex_attention(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper that records PyTorch's `flex_attention` as a row; its Triton template is not run."""

    @functools.wraps(function)
    def call(
        query: Any, key: Any, value: Any, score_mod: Any = None, block_mask: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        causal, window = _reach(getattr(block_mask, "mask_mod", None))
        known = {"is_causal": causal, "window": window, "mask": "", "biased": score_mod is not None}
        return recorder.whole(
            "attention", function.__name__, lambda: query.new_empty(*query.shape[:-1], value.shape[-1]),
            [query, key, value], **known, **_sizes(query, key),
        )  # fmt: skip

    return call


def block_mask(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper of PyTorch's `create_block_mask` that keeps only the mask function, as `flex_attention` needs it."""

    @functools.wraps(function)
    def create(mask_mod: Any, *args: Any, **kwargs: Any) -> Any:
        return types.SimpleNamespace(mask_mod=mask_mod)

    return create


def _reach(mask: Callable[..., Any] | None) -> tuple[bool, int]:
    """Whether a mask function hides later positions, and the window of earlier keys that a query sees; 0: no window."""
    if mask is None:
        return False, 0
    with unset_fake_temporarily():
        none, here, keys = torch.tensor(0), torch.tensor(FAR), torch.arange(2 * FAR)
        try:
            seen = torch.as_tensor(mask(none, none, here, keys)).expand(2 * FAR)
        except Exception:  # a mask that depends on data, such as document ids, has no fixed window
            return False, 0
        before = int(seen[: FAR + 1].sum())
        return not bool(seen[FAR + 1 :].any()), before if before <= FAR else 0


WRAPPERS: dict[str, Callable[[Recorder, Callable[..., Any]], Callable[..., Any]]] = {
    **dict.fromkeys(INTERFACES, interface),
    "scaled_dot_product_attention": dot_product_attention,
    "flex_attention": flex_attention,
    "create_block_mask": block_mask,
}
"""Wrappers by the name of the function that they replace in the model's own files."""

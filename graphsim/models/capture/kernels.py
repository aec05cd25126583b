"""Replacement of kernels by name: in the context `kernels(model)`, graphsim's operators replace loops over tokens.

transformers calls the kernels of mamba_ssm, causal_conv1d and flash-linear-attention through functions in each model's
file, and so do similar models elsewhere; they are found by their names. Methods that contain such a loop are replaced
as a whole (`loops`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch

from graphsim.models.capture.loops import METHODS
from graphsim.models.capture.operators import Recurrence, causal_conv, scan

Tensor = Any

LEARNED = frozenset({"A_log", "D", "dt_bias", "recurrent_param", "time_decay", "time_first"})
"""Names of the learned weights of a recurrence, in all models."""


class Kernels:
    """The functions that replace kernels; the learned weights are those of the module that is running."""

    def __init__(self) -> None:
        self.running: list[Any] = []

    def learned(self, *given: Tensor | None, stacked: bool = False) -> list[Tensor]:
        """The learned weights of the recurrence in the module that is running.

        given: weights passed to the function, returned if no weight of the module has a known name
        stacked: whether the module's weights hold several recurrences, stacked along the first dimension
        """
        module = self.running[-1] if self.running else torch.nn.Module()
        own = [weight for name, weight in module.named_parameters() if name.rpartition(".")[2] in LEARNED]
        own = [weight[0] for weight in own] if stacked else own
        return own or [weight for weight in given if weight is not None]

    def causal_conv1d_fn(
        self,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        **_: Any,
    ) -> Tensor:
        """A causal convolution over all tokens of a step; the cache keeps its own copy of the last ones."""
        return causal_conv(hidden_states, weight, bias, activation=activation)[0]

    def causal_conv1d_update(
        self,
        hidden_states: Tensor,
        conv_state: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        **_: Any,
    ) -> Tensor:
        """A causal convolution over the next token and those in the state, which is updated in place."""
        kept = int(conv_state.shape[-1])
        out, state = causal_conv(hidden_states, weight, bias, conv_state, kept=kept, activation=activation)
        conv_state.copy_(state)
        return out

    def selective_scan(
        self,
        hidden_states: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None = None,
        z: Tensor | None = None,
        delta_bias: Tensor | None = None,
        return_last_state: bool = False,
        **_: Any,
    ) -> Any:
        """The selective scan of Mamba over all tokens; hidden_states and dt are [sequences, channels, tokens]."""
        out, state = self._selective(hidden_states, (dt, B, C), A, D, None, delta_bias)
        out = _gated(out, z)
        return (out, state) if return_last_state else out

    def selective_state_update(
        self,
        state: Tensor,
        hidden_states: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None = None,
        dt_bias: Tensor | None = None,
        z: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """One token of Mamba or, if the state has heads, of Mamba-2; the state is updated in place."""
        if state.dim() == 3:
            out, new = self._selective(hidden_states, (dt, B, C), A, D, state, dt_bias)
        else:
            heads, width, size = (int(n) for n in state.shape[1:])
            recurrence = Recurrence(
                kind="chunk_scan",
                channels=heads * width,
                state_shape=(heads, width, size),
                state_dtype=state.dtype,
                matrix=True,
            )
            learned = self.learned(A[:, 0, 0], D, dt_bias)
            out, new = scan(recurrence, hidden_states, (dt[..., 0], B, C), learned, (state,))
        state.copy_(new)
        return _gated(out, z)

    def _selective(
        self,
        values: Tensor,
        inputs: tuple[Tensor, ...],
        A: Tensor,
        D: Tensor | None,
        state: Tensor | None,
        step_bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        shape = (int(A.shape[0]), int(A.shape[1]))
        recurrence = Recurrence(
            kind="selective_scan",
            channels=shape[0],
            state_shape=shape,
            state_dtype=torch.float32 if state is None else state.dtype,
            matrix=False,
        )
        whole = self.learned(A, D)
        learned = self.learned(A, D, stacked=max(weight.dim() for weight in whole) > A.dim())
        return scan(recurrence, values, inputs, learned, (state,), step_bias)

    def chunk_scan(
        self,
        hidden_states: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        chunk_size: int | None = None,
        D: Tensor | None = None,
        z: Tensor | None = None,
        dt_bias: Tensor | None = None,
        initial_states: Tensor | None = None,
        return_final_states: bool = False,
        **_: Any,
    ) -> Any:
        """The chunked scan of Mamba-2 over all tokens; hidden_states are [sequences, tokens, heads, head width]."""
        heads, width, size = int(hidden_states.shape[2]), int(hidden_states.shape[3]), int(B.shape[-1])
        recurrence = Recurrence(
            kind="chunk_scan", channels=heads * width, state_shape=(heads, width, size), matrix=True
        )
        out, state = scan(recurrence, hidden_states, (dt, B, C), self.learned(A, D, dt_bias), (initial_states,))
        out = _gated(out, z)
        return (out, state) if return_final_states else out

    def gated_delta_rule(self, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, **given: Any) -> Any:
        """The gated delta rule with one decay per head and token."""
        return self._delta("gated_delta_rule", query, key, value, (g, beta), given)

    def kimi_delta_rule(self, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, **given: Any) -> Any:
        """The gated delta rule of Kimi, with one decay per channel and token."""
        return self._delta("kimi_delta_rule", query, key, value, (g, beta), given)

    def _delta(
        self, kind: str, query: Tensor, key: Tensor, value: Tensor, gates: tuple[Tensor, Tensor], given: dict[str, Any]
    ) -> Any:
        heads, width, size = int(value.shape[2]), int(value.shape[3]), int(key.shape[3])
        recurrence = Recurrence(kind=kind, channels=heads * width, state_shape=(heads, size, width), matrix=True)
        before = (given.get("initial_state"),)
        out, state = scan(recurrence, value, (query, key, *gates), self.learned(), before)
        return out, state if given.get("output_final_state") else None

    def wkv(
        self,
        time_decay: Tensor,
        time_first: Tensor,
        key: Tensor,
        value: Tensor,
        state: Any = None,
        return_state: bool = False,
    ) -> tuple[Tensor, list[Tensor] | None]:
        """The recurrence of RWKV-4; its state is numerator, denominator and largest exponent of each channel."""
        channels = int(key.shape[2])
        recurrence = Recurrence(kind="wkv", channels=channels, state_shape=(3, channels), matrix=False)
        out, new = scan(recurrence, value, (key,), (time_decay, time_first), state or ())
        return out, list(new.unbind(1)) if return_state or state is not None else None


def _gated(out: Tensor, z: Tensor | None) -> Tensor:
    return out if z is None else out * torch.nn.functional.silu(z)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "causal_conv1d_fn": Kernels.causal_conv1d_fn,
    "causal_conv1d_update": Kernels.causal_conv1d_update,
    "mamba_selective_scan": Kernels.selective_scan,
    "selective_scan_fn": Kernels.selective_scan,
    "mamba_selective_state_update": Kernels.selective_state_update,
    "mamba2_selective_state_update": Kernels.selective_state_update,
    "selective_state_update": Kernels.selective_state_update,
    "mamba2_chunk_scan": Kernels.chunk_scan,
    "mamba_chunk_scan_combined": Kernels.chunk_scan,
    "torch_chunk_gated_delta_rule": Kernels.gated_delta_rule,
    "torch_recurrent_gated_delta_rule": Kernels.gated_delta_rule,
    "chunk_gated_delta_rule": Kernels.gated_delta_rule,
    "recurrent_gated_delta_rule": Kernels.gated_delta_rule,
    "fused_recurrent_gated_delta_rule": Kernels.gated_delta_rule,
    "chunk_kimi_delta_attention": Kernels.kimi_delta_rule,
    "recurrent_kimi_delta_attention": Kernels.kimi_delta_rule,
    "chunk_kda": Kernels.kimi_delta_rule,
    "fused_recurrent_kda": Kernels.kimi_delta_rule,
    "rwkv_linear_attention": Kernels.wkv,
}
"""Replacements by the name of a function that loops over tokens or calls such a kernel, in model files or modules."""


@contextmanager
def kernels(model: torch.nn.Module) -> Iterator[None]:
    """Context in which the model calls `graphsim::scan` and `graphsim::causal_conv` instead of looping over tokens.

    Functions of the files that define the model's classes are replaced, so other models of these classes must not run
    meanwhile. Everything is restored on exit, also after an error.
    """
    found = Kernels()
    with ExitStack() as undo:
        for names in _namespaces(model):
            for name in FUNCTIONS.keys() & names.keys():
                if names[name] is None or callable(names[name]):
                    undo.callback(names.__setitem__, name, names[name])
                    names[name] = MethodType(FUNCTIONS[name], found)
        for module in model.modules():
            undo.callback(module.register_forward_pre_hook(lambda m, a: found.running.append(m)).remove)
            leave = module.register_forward_hook(lambda m, a, o: _leave(found), always_call=True)
            undo.callback(leave.remove)
            for name, replacement in METHODS.get(type(module).__name__, {}).items():
                undo.callback(_put_back, module, name, module.__dict__.get(name))
                module.__dict__[name] = MethodType(replacement, module)
        yield


def _leave(found: Kernels) -> None:
    found.running.pop()


def _put_back(module: Any, name: str, before: Any) -> None:
    if before is None:
        module.__dict__.pop(name, None)
    else:
        module.__dict__[name] = before


def _namespaces(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Namespaces of the files that define the model's classes, and of the modules themselves, without duplicates."""
    files = {cls.__module__ for module in model.modules() for cls in type(module).__mro__}
    theirs = [name for name in sorted(files) if not name.startswith(("torch.", "builtins")) and name in sys.modules]
    spaces = [vars(sys.modules[name]) for name in theirs]
    return spaces + [module.__dict__ for module in model.modules()]

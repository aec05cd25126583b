"""Patches with which a model's own Python code runs on tensors without data.

Each one names the transformers version that needs it. Nothing else is patched: any other data-dependent query remains
an error of the capture.
"""

from __future__ import annotations

import copy
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from graphsim.models.capture.replacing import loaded, replaced

ANSWERS: dict[tuple[str, str], Any] = {
    # 5.24: no token attends globally without a global_attention_mask, and none is given
    ("led", "is_global_attn = is_index_global_attn.flatten().any().item()"): False,
    # 5.24: assertions that no sequence is longer than the longest one
    ("xlm", "assert lengths.max().item() <= slen"): 0,
    # 5.24: the few positions that mark the beginning and end of an image get one embedding each
    ("ovis2", "if mask.any():"): False,
    # 5.24: whether each audio position or only one per clip has a placeholder
    ("qwen2_audio", "if not is_torchdynamo_compiling() and legacy_processing:"): False,
}
"""Results of data-dependent queries, by model type and source line of the query."""

PLACEHOLDERS = ("image_token_id", "video_token_id", "audio_token_id")
"""Config fields with the token ids that mark the positions of image, video or audio features."""

KEPT = frozenset(
    {
        "pixel_values = pixel_values[real_images_inds].contiguous()",
        "pixel_attention_mask = pixel_attention_mask[real_images_inds].contiguous()",
    }
)
"""Source lines of 5.24 that drop all-zero padding images; here, no image is dropped."""

MADE = frozenset({torch.tensor, torch.as_tensor, torch.arange, torch.linspace})
"""Functions whose results are real tensors if all arguments are numbers: positions, grids and lengths."""

QUESTIONS = frozenset({torch.Tensor.item, torch.Tensor.__bool__, torch.Tensor.tolist})


@contextmanager
def patched(model: Any) -> Iterator[None]:
    """Context in which `model` can run on fake tensors; everything is restored on exit."""
    with ExitStack() as stack:
        # 5.24: disables checks of values, such as placeholders against image features (torch_compilable_check)
        stack.enter_context(mock.patch.dict(os.environ, {"TRANSFORMERS_DISABLE_TORCH_CHECK": "1"}))
        stack.enter_context(_Answers())
        stack.enter_context(_placeholders(getattr(model, "config", None)))
        stack.enter_context(_caches_without_attention())
        for module in model.modules():
            for name, replacement in METHODS.get(type(module).__name__, {}).items():
                stack.enter_context(mock.patch.object(module, name, MethodType(replacement, module)))
        yield


@contextmanager
def _placeholders(config: Any) -> Iterator[None]:
    """5.24: default configs of the BLIP-2 family lack the placeholder id of images; its value does not affect sizes."""
    unnamed = [name for name in PLACEHOLDERS if getattr(config, name, 0) is None]
    for name in unnamed:
        setattr(config, name, 0)
    try:
        yield
    finally:
        for name in unnamed:
            setattr(config, name, None)


@contextmanager
def _caches_without_attention() -> Iterator[None]:
    """5.24: hybrid models without any attention layer (bamba's default) query a cache length that no layer maintains.

    It is only used for position ids and for a mask that no layer reads.
    """
    caches = loaded("transformers.cache_utils")
    if caches is None:
        yield
        return
    counted, sized = caches.Cache.get_seq_length, caches.Cache.get_mask_sizes

    def counts(cache: Any) -> bool:
        return not cache.layers or any(isinstance(layer, caches.CacheLayerMixin) for layer in cache.layers)

    def length(self: Any, layer_idx: int = 0) -> Any:
        return counted(self, layer_idx) if counts(self) else 0

    def mask_sizes(self: Any, query_length: Any, layer_idx: int) -> Any:
        return sized(self, query_length, layer_idx) if counts(self) else (query_length, 0)

    with replaced(caches.Cache, "get_seq_length", length), replaced(caches.Cache, "get_mask_sizes", mask_sizes):
        yield


class _Answers(TorchFunctionMode):
    """Answers the queries in `ANSWERS`, divides symbolic sizes exactly, and computes on real tensors.

    Real tensors are small and describe sizes, such as the grid of an image. Operations on both real and fake tensors
    give fake tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        real = [tensor for tensor in tensors if _is_real(tensor)]
        if func is torch.Tensor.__getitem__ and _asking_line()[1] in KEPT:
            return args[0]
        made = func in MADE if not tensors else len(real) == len(tensors)
        if made and not _has_sizes((args, kwargs)):
            return _really(func, args, kwargs)
        if func is torch.Tensor.__getitem__:
            args = (args[0], _known_index(args[1]))
        args, kwargs = tree_map(_without_data, (args, kwargs))
        if func in QUESTIONS:
            asked = _asking_line()
            if asked in ANSWERS:
                return ANSWERS[asked]
        if func is torch.div and kwargs.get("rounding_mode") in ("trunc", "floor") and _are_sizes(args):
            return args[0] // args[1]  # sizes are not negative; led 5.24 divides its length this way
        return func(*args, **kwargs)


def _is_real(tensor: Any) -> bool:
    return not isinstance(tensor, FakeTensor | torch.nn.Parameter) and tensor.device.type == "cpu"


def _really(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of a function of real tensors, computed on the CPU regardless of the requested device."""
    args, kwargs = tree_map(_on_cpu, (args, kwargs))
    with _disable_current_modes():
        return func(*args, **kwargs)


def _has_sizes(values: Any) -> bool:
    """Whether nested values, including bounds of slices, contain a symbolic size."""
    leaves = tree_leaves(values)
    ends = [end for value in leaves if isinstance(value, slice) for end in (value.start, value.stop, value.step)]
    return any(isinstance(value, torch.SymInt | torch.SymFloat) for value in (*leaves, *ends))


def _without_data(value: Any) -> Any:
    """A value that can be combined with fake tensors: an integer scalar as int, other real tensors as meta tensors."""
    if isinstance(value, torch.device) and value.type == "cpu":
        return torch.device("meta")
    if not isinstance(value, torch.Tensor) or not _is_real(value):
        return value
    with _disable_current_modes():
        if value.dim() == 0 and not value.is_floating_point() and value.dtype is not torch.bool:
            return int(value)
        return torch.empty(value.shape, dtype=value.dtype, device="meta")


def _known_index(index: Any) -> Any:
    """An index with the bounds of slices as numbers and real Boolean masks as positions."""
    places: list[Any] = []
    with _disable_current_modes():
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, slice):
                ends = (part.start, part.stop, part.step)
                places.append(slice(*(int(e) if isinstance(e, torch.Tensor) and _is_real(e) else e for e in ends)))
            elif isinstance(part, torch.Tensor) and part.dtype is torch.bool and _is_real(part):
                places.extend(part.nonzero(as_tuple=True))
            else:
                places.append(part)
    return tuple(places) if isinstance(index, tuple) or len(places) > 1 else places[0]


def _on_cpu(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _asking_line() -> tuple[str, str]:
    frame = sys._getframe(1)
    while frame.f_code.co_name == "__torch_function__" and frame.f_back:
        frame = frame.f_back
    model_type = frame.f_globals.get("__name__", "").rpartition("modeling_")[2]
    return model_type, linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()


def _are_sizes(args: tuple[Any, ...]) -> bool:
    return len(args) == 2 and all(isinstance(size, int | torch.SymInt) for size in args)


def _cpmant_attention_mask(self: Any, input_ids: Any, span: Any, context: Any, length: Any) -> Any:
    """5.24 builds positions as a Python list, which turns the symbolic length into a number; `arange` does not."""
    batch, tokens = input_ids.shape
    prompt, device = self.prompt_length, input_ids.device
    positions = torch.arange(tokens, device=device)
    seen = context[:, None, :] | (context[:, :, None].logical_not() & (positions <= positions.view(-1, 1))[None])
    seen = seen & (span[:, None, :] == span[:, :, None])
    real = torch.arange(tokens - prompt, device=device).flip(0)[None].expand(batch, -1) < length[:, None]
    real = torch.cat((torch.ones(batch, prompt, device=device, dtype=torch.bool), real), dim=1)
    return real[:, :, None] & real[:, None, :] & seen


def _prophetnet_positions(
    self: Any, inputs_shape: Any, device: Any, attention_mask: Any = None, cache: Any = None, position_ids: Any = None
) -> Any:
    """5.24 casts the position of a new token to `int` for ONNX, which turns the symbolic length into a number."""
    if position_ids is None and cache is not None and cache.get_seq_length() != 0:
        position = self.padding_idx + inputs_shape[1] + cache.get_seq_length()
        position_ids = torch.ones((1, 1), dtype=torch.long, device=device) * position
        return self._forward(position_ids), position_ids
    return type(self).forward(self, inputs_shape, device, attention_mask, cache, position_ids)


def _router_in_its_own_dtype(self: Any, *args: Any, **kwargs: Any) -> Any:
    """5.24 casts the classifier's weight in place, which fails for a weight without data."""
    kept = self.classifier
    cast = copy.copy(kept)
    cast._parameters = {
        name: None if weight is None else weight.to(self.dtype) for name, weight in kept._parameters.items()
    }
    cast.to = lambda *dtype: cast
    self.classifier = cast
    try:
        return type(self).forward(self, *args, **kwargs)
    finally:
        self.classifier = kept


METHODS: dict[str, dict[str, Callable[..., Any]]] = {
    "CpmAntModel": {"_prepare_attention_mask": _cpmant_attention_mask},
    "ProphetNetPositionalEmbeddings": {"forward": _prophetnet_positions},
    "NllbMoeTop2Router": {"forward": _router_in_its_own_dtype},
    "SwitchTransformersTop1Router": {"forward": _router_in_its_own_dtype},
}
"""Replacements of methods, by class and method name."""

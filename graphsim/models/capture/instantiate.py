"""A PyTorch model without its weights: from a module, a transformers config or a config.json."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError, choices_text, needs
from graphsim.files import catalog
from graphsim.files.present import is_folder, is_present
from graphsim.files.reading import load_mapping

AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
)
"""transformers' auto classes with a head for generation, in the order in which a model type is looked up."""

ENCODER_DECODER_CLASSES = ("AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq", "AutoModelForImageTextToText")
"""Classes tried first for a config with `is_encoder_decoder`: many such types also exist as a decoder only."""


def meta_model(ref: Any) -> Any:
    """The model in evaluation mode on the meta device: shapes and data types, no weight allocated.

    ref: an `nn.Module` (not modified: the result is a copy whose tensors are all meta), a transformers config, the
        mapping of a config.json, or a path to a config.json or to the folder that contains one

    For a config, the class is the first of `architectures` that transformers has, else that of an auto class with a
    head for generation; the data type is the config's, bfloat16 by default. Custom code of a checkpoint (`auto_map`) is
    never run.

    Raises:
        ConfigError: torch or transformers is missing, the file or its model type is unknown, or the class rejects the
            config.
    """
    torch = _required("torch")
    if isinstance(ref, torch.nn.Module):
        return _meta_copy(ref).eval()
    transformers = _required("transformers")
    config = copy.deepcopy(ref) if isinstance(ref, transformers.PretrainedConfig) else _config(transformers, ref)
    cls = _model_class(transformers, config)
    if getattr(config, "is_decoder", None) is False and _is_causal(transformers, cls):
        config.is_decoder = True  # BertLMHeadModel and similar classes need it for causal attention and a cache
    dtype = getattr(config, "dtype", None) or torch.bfloat16
    try:
        with torch.device("meta"):
            model = cls._from_config(config, dtype=dtype)
    except ImportError as error:
        raise ConfigError(f"{cls.__name__} needs a package that is not installed: {one_line(error)}") from error
    except Exception as error:  # a class may raise any error for its config
        raise ConfigError(f"{cls.__name__} refuses this config: {one_line(error)}") from error
    _drop_data(model, dtype)
    return model.eval()


def one_line(error: BaseException) -> str:
    """An error's message on one line; the name of its class if the message is empty."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _required(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise needs(name, "torch") from error


def _meta_copy(module: Any) -> Any:
    """A deep copy of a module with meta tensors; tensors shared within the module stay shared."""
    memo: dict[int, Any] = {}
    for tensor in _tensors(module):
        if id(tensor) not in memo:
            memo[id(tensor)] = _meta_tensor(tensor)
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ConfigError(f"{type(module).__name__} cannot be copied without its weights: {one_line(error)}") from error


def _drop_data(model: Any, dtype: Any) -> None:
    """Replace tensors that a class created on the CPU regardless of the default device by meta tensors.

    `torch.FloatTensor(…)` creates such tensors. Loading a checkpoint casts these weights to the model's data type, so
    they have it here, too.
    """
    torch = import_module("torch")
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and weight.device.type != "meta":
                bare = torch.empty(weight.shape, dtype=dtype, device="meta")
                module._parameters[name] = made.setdefault(id(weight), torch.nn.Parameter(bare))
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.device.type != "meta":
                module._buffers[name] = made.setdefault(id(buffer), _meta_tensor(buffer))


def _tensors(module: Any) -> Iterator[Any]:
    """Parameters, buffers and tensors in plain attributes of modules."""
    torch = import_module("torch")
    from torch.utils._pytree import tree_leaves

    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        plain = {
            name: value for name, value in vars(part).items() if name not in ("_parameters", "_buffers", "_modules")
        }
        yield from (value for value in tree_leaves(plain) if isinstance(value, torch.Tensor))


def _meta_tensor(tensor: Any) -> Any:
    torch = import_module("torch")
    bare = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(bare, requires_grad=tensor.requires_grad)
    return bare


def _config(transformers: Any, ref: Any) -> Any:
    """The transformers config described by a mapping, or by the file at a path."""
    raw, where = (dict(ref), "this config") if isinstance(ref, Mapping) else _read(ref)
    model_type = raw.get("model_type")
    known = transformers.CONFIG_MAPPING
    if not isinstance(model_type, str) or model_type not in known:
        own_code = "; its own code (auto_map) is not run: build the module and pass that" if raw.get("auto_map") else ""
        raise ConfigError(
            f"{where}: transformers {transformers.__version__} has no model_type {model_type!r}{own_code}; "
            + choices_text(model_type, known.keys())
        )
    try:
        return known[model_type].from_dict(raw)
    except Exception as error:
        raise ConfigError(f"{where}: {known[model_type].__name__} refuses it: {one_line(error)}") from error


def _read(ref: Any) -> tuple[dict[str, Any], str]:
    if not isinstance(ref, str | os.PathLike):
        raise ConfigError(
            f"a model to capture is an nn.Module, a transformers config, a mapping or a path, not {type(ref).__name__}"
        )
    path = Path(ref)
    path = path / "config.json" if is_folder(path) else path
    if not is_present(path):
        return _of_catalog(str(ref))
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: its config.json cannot be read: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a config.json is a mapping, not {type(raw).__name__}")
    return raw, str(path)


def _of_catalog(name: str) -> tuple[dict[str, Any], str]:
    """The published config.json of a model in the catalog, and the model's name."""
    path = catalog.held(catalog.MODELS, name)
    if path is None:
        raise ConfigError(f"{name}: is neither a folder with a readable config.json nor a model of the catalog")
    config = load_mapping(path).get("config")
    if not isinstance(config, dict):
        raise ConfigError(f"model '{name}' of the catalog holds no config.json; capture it from its published one")
    return config, name


def _model_class(transformers: Any, config: Any) -> Any:
    """The class named in `architectures`, else that of the first auto class with a head for generation."""
    for name in getattr(config, "architectures", None) or ():
        cls = getattr(transformers, name, None)
        if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
            return cls
    decoder_only_last = ENCODER_DECODER_CLASSES if getattr(config, "is_encoder_decoder", False) else ()
    for auto in (*decoder_only_last, *AUTO_CLASSES):
        mapping = getattr(transformers, auto)._model_mapping
        if type(config) in mapping:
            return _first(mapping[type(config)])
    raise ConfigError(
        f"transformers {transformers.__version__} has no class with a generating head for {type(config).__name__}"
    )


def _is_causal(transformers: Any, cls: Any) -> bool:
    """Whether transformers lists a class among its causal language models."""
    listed = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return any(cls.__name__ in (names if isinstance(names, tuple) else (names,)) for names in listed)


def _first(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) else found

"""The header of an adapter's `adapter_model.safetensors`: names, shapes, formats, and LoRA's ranks against its config.

Names of LoRA's tensors as PEFT 0.21 saves them: `base_model.model.<module>.lora_A.weight` of [r, in], `lora_B.weight`
of [out, r], `lora_embedding_A` of [r, entries], `lora_embedding_B` of [width, r].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.safetensors import read_header, read_shape
from graphsim.lora.matching import matched
from graphsim.units import short

_DTYPES = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")
"""The safetensors names of the formats that a factor may be stored in."""

_INDICES = ("I8", "U8", "I16", "I32", "I64", "BOOL")
"""The same for indices and masks, which some methods store in addition to trained weights."""

_FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.weight)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTensors:
    """Shapes of a file's tensors by their names there.

    notes: on the format of the factors
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()


def read_tensors(folder: Path) -> AdapterTensors | None:
    """The header of a PEFT folder's weights; None if there are no weights next to the config.

    Raises ConfigError for an invalid header, and for weights in `adapter_model.bin`, which is never unpickled.
    """
    path, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if not path.is_file():
        if pickled.is_file():
            raise ConfigError(
                f"{pickled}: is a pickle, which is not read because reading it may run code; expected "
                "adapter_model.safetensors, as PEFT saves it with safe_serialization=True, or no weights at all"
            )
        return None
    found = {key: _tensor(path, key, entry) for key, entry in read_header(path).items()}
    wide = ", ".join(sorted({dtype for _, dtype in found.values()} - {"BF16", "F16", *_INDICES}))
    note = f"the adapter's file holds {wide}; lora_dtype says what the engine keeps in memory"
    return AdapterTensors(
        path=path, shapes={key: tuple(shape) for key, (shape, _) in found.items()}, notes=(note,) if wide else ()
    )


def check_factors(config: Mapping[str, Any], tensors: AdapterTensors) -> None:
    """Raise ConfigError for a factor whose module or rank does not match the config of a LoRA."""
    for key, shape in tensors.shapes.items():
        found = _FACTOR.fullmatch(key)
        if found and not _is_parameter(config, found["module"]):
            _check_factor(config, tensors.path, key, found, shape)


def _check_factor(
    config: Mapping[str, Any], path: Path, key: str, found: re.Match[str], shape: tuple[int, ...]
) -> None:
    if not _is_target(config, found["module"]):
        raise ConfigError(f"{path}: tensor '{key}' belongs to a module that the config's target_modules do not name")
    if len(shape) not in (2, 4):  # 4 of a convolution
        raise ConfigError(f"{path}: tensor '{key}' has shape {list(shape)}, expected two dimensions")
    rank, expected = shape[0 if found["factor"] == "A" else 1], _rank_of(config, found["module"])
    if rank != expected:
        raise ConfigError(f"{path}: tensor '{key}' has rank {rank}, the config says {expected}")


def _tensor(path: Path, key: str, entry: Any) -> tuple[list[int], str]:
    shape, dtype = read_shape(path, key, entry)
    factor = _FACTOR.fullmatch(key) is not None
    if dtype not in _DTYPES and (factor or dtype not in _INDICES):
        allowed = _DTYPES if factor else (*_DTYPES, *_INDICES)
        raise ConfigError(f"{path}: tensor '{key}' has dtype {short(dtype)}, allowed: {', '.join(allowed)}")
    return shape, str(dtype)


def _is_target(config: Mapping[str, Any], module: str) -> bool:
    """PEFT's rules, except for layers; anything that depends on the model is checked with the model."""
    targets = config["target_modules"]
    if targets is None or config["ensure_weight_tying"]:
        return True
    if isinstance(targets, str):
        return targets.lower() == "all-linear" or matched(targets, module, "target_modules", re.fullmatch) is not None
    return any(module == entry or module.endswith(f".{entry}") for entry in targets)


def _is_parameter(config: Mapping[str, Any], module: str) -> bool:
    """Whether a module's factors are those of a stack of experts, which hold all experts' ranks in one."""
    parents = (entry.rpartition(".")[0] for entry in config["target_parameters"])
    name = re.sub(r"(\.base_layer)+$", "", module)
    stacked = "experts" in name.split(".")
    return stacked or any(parent and (name == parent or name.endswith(f".{parent}")) for parent in parents)


def _rank_of(config: Mapping[str, Any], module: str) -> Any:
    for pattern, rank in config["rank_pattern"].items():
        if matched(rf"(.*\.)?({pattern})$", module, "rank_pattern"):
            return rank
    return config["rank"]

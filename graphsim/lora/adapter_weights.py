"""The header of an adapter's `adapter_model.safetensors` against its config: modules, ranks, formats.

Names of tensors as PEFT 0.21 saves them: `base_model.model.<module>.lora_A.weight` of [r, in], `lora_B.weight` of
[out, r], `lora_embedding_A` of [r, entries], `lora_embedding_B` of [width, r].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.safetensors import read_header, read_shape
from graphsim.lora.matching import matched
from graphsim.units import short

_DTYPES = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")
"""What safetensors calls the formats that a factor may be stored in."""

_FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])(?:\.weight)?")


def check_weights(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Notes on the factors' format, where it is not the 16 bits that engines keep them in.

    Raises ConfigError for a header that is none, and for a factor of no such module, rank or format as the config says.
    """
    dtypes: set[str] = set()
    for key, entry in read_header(path).items():
        found = _FACTOR.fullmatch(key)
        if not found:
            continue
        shape, dtype = _tensor(path, key, entry)
        dtypes.add(dtype)
        if not _is_parameter(config, found["module"]):
            _check_factor(config, path, key, found, shape)
    wide = ", ".join(sorted(dtypes - {"BF16", "F16"}))
    return (f"the adapter's file holds {wide}; lora_dtype says what the engine keeps in memory",) if wide else ()


def _check_factor(config: Mapping[str, Any], path: Path, key: str, found: re.Match[str], shape: list[int]) -> None:
    if not _is_target(config["target_modules"], found["module"]):
        raise ConfigError(f"{path}: tensor '{key}' is of a module that the config's target_modules do not name")
    if len(shape) not in (2, 4):  # 4 of a convolution
        raise ConfigError(f"{path}: tensor '{key}' has shape {shape}, expected two dimensions")
    rank, expected = shape[0 if found["factor"] == "A" else 1], _rank_of(config, found["module"])
    if rank != expected:
        raise ConfigError(f"{path}: tensor '{key}' has rank {rank}, the config says {expected}")


def _tensor(path: Path, key: str, entry: Any) -> tuple[list[int], str]:
    shape, dtype = read_shape(path, key, entry)
    if dtype not in _DTYPES:
        raise ConfigError(f"{path}: tensor '{key}' has dtype {short(dtype)}, allowed: {', '.join(_DTYPES)}")
    return shape, str(dtype)


def _is_target(targets: str | tuple[str, ...], module: str) -> bool:
    """PEFT's rules, but for the layers; what `all-linear` reaches only the model can say."""
    if isinstance(targets, str):
        return targets.lower() == "all-linear" or matched(targets, module, "target_modules", re.fullmatch) is not None
    return any(module == entry or module.endswith(f".{entry}") for entry in targets)


def _is_parameter(config: Mapping[str, Any], module: str) -> bool:
    """Whether a module's factors are those of a stack of experts, which hold all experts' ranks in one."""
    parents = (entry.rpartition(".")[0] for entry in config["target_parameters"])
    name = re.sub(r"(\.base_layer)+$", "", module)
    return any(parent and (name == parent or name.endswith(f".{parent}")) for parent in parents)


def _rank_of(config: Mapping[str, Any], module: str) -> Any:
    for pattern, rank in config["rank_pattern"].items():
        if matched(rf"(.*\.)?({pattern})$", module, "rank_pattern"):
            return rank
    return config["rank"]

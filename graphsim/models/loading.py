"""Models by name, path or data: the only place where a description becomes a ModelConfig."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files import catalog
from graphsim.files.present import expanded, is_folder, is_present
from graphsim.files.reading import load_mapping
from graphsim.models.config import ModelConfig
from graphsim.models.published import KEY, read_published
from graphsim.models.yaml import read_model
from graphsim.units import short

if TYPE_CHECKING:
    from graphsim.files.model_names import NamedModel
    from graphsim.files.tensors import StoredTensors
    from graphsim.models.checkpoint.report import CheckpointReport

_SUFFIXES = (".yaml", ".yml", ".json", ".gguf")
_NO_MODEL = re.compile(r"-0000[2-9]-of-|-000[1-9]\d-of-|-00[1-9]\d\d-of-|mmproj")
"""Names of GGUF files that continue another one, or that hold a tower."""

ModelRef = str | Path | Mapping[str, Any] | ModelConfig
"""A reference to a model: a catalog name, a path, the data of a file, or the model itself."""


def list_models() -> list[str]:
    """Names of the models in `models/` and the user's own folders, sorted."""
    return catalog.list_names(catalog.MODELS)


def load_model(ref: ModelRef, *, check: bool = True, ignore: Iterable[str] | str = ()) -> ModelConfig:
    """The model that `ref` names: a catalog name, a YAML, config.json or GGUF file, a model folder, or such data.

    check: compare the structure with the headers or the index of the safetensors files next to a config.json
    ignore: keys of a Hugging Face config that graphsim does not know and that appear to shape the model, to be ignored;
        `all` ignores every such key
    The result belongs to the caller: assigning its `lora_config` changes no other model.
    Raises ConfigError naming the file, the key, what was found and what is allowed; if a checkpoint does not match its
    config, it names the modules that differ.
    """
    if isinstance(ref, ModelConfig):
        return copy.copy(ref)
    without = check_ignore(ignore)
    if isinstance(ref, Mapping):
        return _from_data(ref, "the model given as a mapping", "custom", without)
    if not isinstance(ref, str | Path) or not str(ref).strip():
        raise ConfigError(f"model = {short(ref)} is not allowed; expected a name, a path or a mapping")
    found = _find(ref)
    if isinstance(found, dict):
        return _from_data(found, f"model '{ref}'", str(found["_name_or_path"]) or "custom", without)
    if not isinstance(found, Path):
        from graphsim.models.derived import altered

        return altered(_from_path(catalog.find_file(catalog.MODELS, found.name), without), found)
    stamp = _stamp(found)
    config = copy.copy(_from_file(found, stamp, without))
    compared = _compared(found, stamp, without) if check else None
    if compared is None:
        return config
    from graphsim.models.checkpoint.refusal import checked

    return checked(*compared)


def checkpoint_report(
    config: ModelConfig, ref: str | Path, ignore: Iterable[str] | str = ()
) -> CheckpointReport | None:
    """The model's structure compared with the tensors of its folder; None if the folder has none."""
    path = _find(ref)
    if not isinstance(path, Path):
        return None
    compared = _compared(path, _stamp(path), check_ignore(ignore))
    return None if compared is None else compared[1]


def _from_path(path: Path, ignore: tuple[str, ...]) -> ModelConfig:
    return _from_file(path, _stamp(path), ignore)


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """A stamp that changes with a model's files: the description and, if present, the checkpoint."""
    files = [path]
    if path.name == "config.json":
        files += sorted([*path.parent.glob("*.safetensors*"), *path.parent.glob("hf_quant_config.json")])
    return tuple((file.name, (found := file.stat()).st_mtime_ns, found.st_size) for file in files)


@lru_cache(maxsize=256)
def _compared(
    path: Path, stamp: tuple[tuple[str, int, int], ...], ignore: tuple[str, ...]
) -> tuple[ModelConfig, CheckpointReport] | None:
    """A model corrected by its checkpoint, and their differences; None without a checkpoint."""
    if path.suffix != ".gguf" and path.name != "config.json":
        return None
    from graphsim.files.safetensors import read_folder
    from graphsim.models.checkpoint.compare import compare
    from graphsim.models.checkpoint.own_head import with_own_head

    if path.suffix == ".gguf":
        model, stored = _from_gguf(path, stamp)
        return model, compare(model, stored)
    found = read_folder(path.parent)
    if found is None:
        return None
    model = with_own_head(_from_file(path, stamp, ignore), found)
    return model, compare(model, found)


def get_configs(ref: ModelRef) -> ModelConfig:
    """The model that the LoRA document's `get_configs` names, in any usual spelling (`llama-7b`, `llama2_7b`).

    Accepts everything that `load_model` accepts, and raises the same errors.
    """
    return load_model(ref)


def is_hugging_face(data: Mapping[str, Any]) -> bool:
    """Whether data is a Hugging Face config rather than a graphsim model file, which may state a type, too."""
    return ("model_type" in data or "architectures" in data) and not {"stem", "blocks"} <= data.keys()


def check_ignore(ignore: Iterable[str] | str) -> tuple[str, ...]:
    """The keys to ignore, as a tuple. Raises ConfigError for anything but names."""
    listed = [part.strip() for part in ignore.split(",") if part.strip()] if isinstance(ignore, str) else list(ignore)
    if not all(isinstance(key, str) for key in listed):
        raise ConfigError(f"ignore = {short(ignore)} is not allowed; expected keys of the config, or all")
    return tuple(listed)


def _from_data(data: Mapping[str, Any], where: str, name: str, ignore: tuple[str, ...]) -> ModelConfig:
    if is_hugging_face(data):
        from graphsim.models.huggingface import from_config

        return from_config(data, where, ignore)
    if KEY in data:
        return read_published(data, where, name, ignore)
    return read_model(data, where, name)


@lru_cache(maxsize=16)
def _from_gguf(path: Path, _stamp: tuple[tuple[str, int, int], ...]) -> tuple[ModelConfig, StoredTensors]:
    from graphsim.models.gguf.reading import read_model as read_gguf_model

    return read_gguf_model(path)


@cache
def _from_file(path: Path, stamp: tuple[tuple[str, int, int], ...], ignore: tuple[str, ...]) -> ModelConfig:
    if path.suffix == ".gguf":
        return _from_gguf(path, stamp)[0]
    return _from_data(_with_quantisation(load_mapping(path), path), str(path), path.stem, ignore)


def _with_quantisation(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """ModelOpt keeps the quantisation, or the layers of a mixed one, in a separate file next to config.json."""
    beside, said = path.with_name("hf_quant_config.json"), data.get("quantization_config")
    enough = said is not None
    if isinstance(said, Mapping) and said.get("quant_algo") == "MIXED_PRECISION":
        enough = "quantized_layers" in said
    if path.name != "config.json" or enough or not beside.is_file():
        return data
    return data | {"quantization_config": load_mapping(beside)}


def _find(ref: str | Path) -> Path | NamedModel | dict[str, Any]:
    """The file of a reference, the model that it names, or the config built from its sizes.

    Raises ConfigError with the nearest known name.
    """
    path = expanded(ref)
    looks_like_path = isinstance(ref, Path) or "/" in str(ref) or path.suffix in _SUFFIXES
    if is_present(path) and looks_like_path:
        return _config_of(path) if is_folder(path) else path.absolute()
    if isinstance(ref, str) and (named := _named(ref)):
        return named
    if is_folder(path):
        return _config_of(path)
    raise ConfigError(_unknown(str(ref), looks_like_path))


def _named(ref: str) -> Path | NamedModel | dict[str, Any] | None:
    """The model named by a text that is not a path: a file of the catalog first."""
    if exact := catalog.held(catalog.MODELS, ref):
        return exact
    from graphsim.files.model_names import named_model
    from graphsim.files.model_sizes import sized_model

    return named_model(ref) or sized_model(ref)


def _unknown(ref: str, looks_like_path: bool) -> str:
    """The error message for an unresolved reference: the reason if known, or how to obtain the model."""
    from graphsim.files.model_names import absent_reason, is_id, near_names

    if reason := absent_reason(ref):
        return f"model {short(ref)} is not in the catalog: {reason}"
    if is_id(ref) and Path(ref).suffix not in _SUFFIXES:
        near, folder = near_names(ref), ref.rsplit("/", 1)[-1]
        nearest = f"; nearest there: {', '.join(near)}" if near else ""
        return (
            f"{ref}: no such model file, and no id of the catalog{nearest}; for a model on Hugging Face run "
            f"`hf download {ref} config.json --local-dir {folder}` and give ./{folder} as the model"
        )
    if looks_like_path:
        return f"{short(ref)}: no such model file; or write a name; {choices_text(ref, list_models())}"
    return f"model {short(ref)} is not known; {choices_text(ref.lower(), list_models())}"


def _config_of(folder: Path) -> Path:
    path = folder / "config.json"
    if path.is_file():
        return path.absolute()
    models = [file for file in sorted(folder.glob("*.gguf")) if not _NO_MODEL.search(file.name)]
    if len(models) > 1:
        raise ConfigError(
            f"{folder}: holds several GGUF files; name one: {', '.join(file.name for file in models[:10])}"
        )
    if not models and (folder / "params.json").is_file():
        raise ConfigError(
            f"{folder}: holds params.json, a config in Mistral's own form, and no config.json; "
            "expected the config.json of the model's files for transformers"
        )
    if not models:
        raise ConfigError(f"{folder}: holds no config.json and no GGUF file; expected a model folder")
    return models[0].absolute()

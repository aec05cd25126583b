"""Reading trainers' own files, identified by their keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.present import expanded, is_folder
from graphsim.files.reading import Fields, load_mapping
from graphsim.training.config_files.axolotl import read_axolotl
from graphsim.training.config_files.config_values import ConfigValues, Source
from graphsim.training.config_files.finish import TrainingFile, finished
from graphsim.training.config_files.huggingface import (
    read_accelerate,
    read_adapter_config,
    read_training_arguments,
    read_trl,
    read_unsloth,
)
from graphsim.training.config_files.known_keys import left_over
from graphsim.training.config_files.llama_factory import read_llama_factory
from graphsim.training.config_files.sharding import read_deepspeed
from graphsim.training.config_files.torchtune import read_torchtune
from graphsim.units import short

READERS: dict[str, Callable[[Source], None]] = {
    "adapter_config": read_adapter_config,
    "deepspeed": read_deepspeed,
    "accelerate": read_accelerate,
    "torchtune": read_torchtune,
    "axolotl": read_axolotl,
    "llama-factory": read_llama_factory,
    "unsloth": read_unsloth,
    "trl": read_trl,
    "training_arguments": read_training_arguments,
}
"""Formats, in the order in which their keys are checked."""

FLATTENED = ("model", "peft", "training", "sft", "trainer", "args")
"""Mappings that commonly group Unsloth's arguments."""


def read_training_config(
    path: str | Path | Mapping[str, Any],
    *more: str | Path | Mapping[str, Any],
    devices: int | None = None,
    model: Any = None,
    ignore: Iterable[str] | str = (),
) -> TrainingFile:
    """What one or several of a trainer's own files say, as arguments of `train` and `fine_tune_plan`.

    path: YAML of Axolotl, LLaMA-Factory, torchtune and TRL; JSON of TrainingArguments, LoraConfig
        (`adapter_config.json`) and DeepSpeed; YAML of accelerate; Unsloth's arguments. Each may also be a mapping
    devices: total number of devices, which few of these files state
    model: used in place of the model that the files name
    ignore: unknown keys to skip even if their names suggest that they affect memory or time; or `all`
    Raises ConfigError naming file, key, value and what is allowed, with all problems of all files.
    """
    told = ConfigValues()
    passed = _checked_ignore(ignore)
    if devices is not None and (isinstance(devices, bool) or not isinstance(devices, int) or devices < 1):
        raise ConfigError(f"devices = {short(devices)} is not allowed; expected a whole number from 1")
    sources = [_source(ref, told, place) for place, ref in enumerate((path, *more))]
    told.files = tuple(source.name for source in sources)
    formats = tuple(format_of(source.fields.data, source.name) for source in sources)
    order = sorted(range(len(sources)), key=lambda place: list(READERS).index(formats[place]))
    for place in reversed(order):  # a trainer's own file first: it describes the whole run
        READERS[formats[place]](sources[place])
    for section, known in told.sections:
        left_over(section, known, passed)
    return finished(told, formats, sources[0].folder, devices, model)


def _source(ref: str | Path | Mapping[str, Any], told: ConfigValues, place: int) -> Source:
    if isinstance(ref, Mapping):
        data: Mapping[str, Any] = ref
        name, folder = f"mapping {place + 1}" if place else "the mapping", Path()
    elif isinstance(ref, str | Path) and str(ref).strip() and "\0" not in str(ref):
        file = expanded(str(ref))
        file = file / "adapter_config.json" if is_folder(file) else file
        data, name, folder = load_mapping(file), str(file), file.parent
    else:
        raise ConfigError(f"config = {short(ref)} is not allowed; expected a file's path or a mapping")
    found = Source(fields=Fields(_flat(data), name, lenient=True), name=name, folder=folder, told=told)
    told.sources.append(found)
    return found


def _flat(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Unsloth's grouped arguments as one mapping; every other file unchanged."""
    inner = [data[key] for key in FLATTENED if isinstance(data.get(key), Mapping)]
    if not any("use_gradient_checkpointing" in part or "load_in_4bit" in part for part in inner):
        return data
    flat = {key: value for key, value in data.items() if not (key in FLATTENED and isinstance(value, Mapping))}
    for part in inner:
        flat |= part
    return flat


def format_of(data: Mapping[str, Any], name: str) -> str:
    """The format identified by a file's keys. Raises ConfigError if there is none."""
    keys = {str(key) for key in data}
    parts = [value for value in data.values() if isinstance(value, Mapping)]
    if "peft_type" in keys or {"r", "lora_alpha", "target_modules"} <= keys and not keys & _UNSLOTH:
        return "adapter_config"
    if keys & {"zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size"}:
        return "deepspeed"
    if keys & {"distributed_type", "compute_environment"}:
        return "accelerate"
    if any("_component_" in part for part in parts):
        return "torchtune"
    if "base_model" in keys:
        return "axolotl"
    if "model_name_or_path" in keys and keys & {"finetuning_type", "stage", "cutoff_len", "lora_target", "template"}:
        return "llama-factory"
    if keys & _UNSLOTH:
        return "unsloth"
    if "model_name_or_path" in keys and keys & _TRL:
        return "trl"
    if keys & {"per_device_train_batch_size", "gradient_accumulation_steps", "output_dir", "num_train_epochs"}:
        return "training_arguments"
    listed = ", ".join(READERS)
    raise ConfigError(f"{name}: has no key that identifies a trainer's file; supported files: {listed}")


_UNSLOTH = {"use_gradient_checkpointing", "full_finetuning", "fast_inference"}
_TRL = {
    "use_peft", "lora_r", "max_length", "max_seq_length", "dataset_name", "attn_implementation", "dtype", "torch_dtype",
    "lora_target_modules", "loss_type", "packing",
}  # fmt: skip


def _checked_ignore(ignore: Iterable[str] | str) -> Collection[str]:
    names = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"ignore = {short(ignore)} is not allowed; expected names of keys, or 'all'")
    return names

"""From the settings in the files to arguments of `train` and of `fine_tune_plan`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.present import is_present
from graphsim.lora.config import LoraConfig
from graphsim.models.loading import load_model
from graphsim.training.config_files.adapters import adapter_data, method_of
from graphsim.training.config_files.config_values import ConfigValues
from graphsim.training.methods import load_method
from graphsim.training.recipe import Recipe, load_recipe

DEVICES_OF_A_NODE = 8
"""Devices that hybrid sharding shards over if no file states it: those of a node."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingFile:
    """The contents of trainers' files.

    files, formats: the files that were read, and their formats
    train: arguments of `train`
    plan: further arguments of
        `fine_tune_plan`; notes: what is left out or assumed; unknown: unknown keys
    """

    files: tuple[str, ...]
    formats: tuple[str, ...]
    train: dict[str, Any]
    plan: dict[str, Any]
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def finished(
    told: ConfigValues, formats: tuple[str, ...], folder: Path, devices: int | None, model: Any = None
) -> TrainingFile:
    """The arguments. devices: total number, if known; model: used instead of the one in the files.

    Raises ConfigError with every problem of the files.
    """
    name, base_format = method_of(told)
    recipe = _recipe(told, name)
    found: dict[str, Any] = {}
    lora = _lora(told, name)
    if model is not None:
        found["model"] = model
    elif told.get("model") is not None:
        found["model"] = _model(told, folder)
    else:
        told.note("the files name no model; give one")
    if told.get("seq_len") is None:
        told.note("the files do not say how long sequences are; give seq_len")
    degrees = _degrees(told, devices)
    _whole_batch(told, degrees.get("dp", 1))
    _raise(told)
    method = load_method(name)
    way = load_recipe(recipe)
    if base_format:
        method = replace(method, base_format=base_format)
    found["method"] = load_method(method, way.upcasts) if method.base_format else name
    if lora is not None and method.adapters:
        found["lora"] = lora if not method.variant else replace(lora, variant=method.variant)
    found["recipe"] = recipe
    for key in ("batch", "seq_len", "accumulate", "recompute", "optimizer", "sharding", "precision"):
        if told.get(key) is not None:
            found[key] = told.get(key)
    if told.get("offload"):
        found["offload"] = told.get("offload")
    if degrees:
        found["parallelism"] = Parallelism(**degrees)
    return TrainingFile(
        files=told.files, formats=formats, train=found, plan=told.under("plan."), notes=tuple(told.notes),
        unknown=tuple(told.unknown),
    )  # fmt: skip


def _recipe(told: ConfigValues, method: str) -> str | dict[str, Any]:
    """The recipe's name, or a mapping that inherits from it if the files change anything."""
    adapted = method not in ("full", "pretrain", "galore")
    amp = told.get("recipe.autocast")
    name = told.get("recipe") or ("transformers" if not adapted else "peft-autocast" if amp else "peft")
    if adapted and amp is False and load_recipe(name).autocast and not told.get("recipe.adapter_format"):
        told.values["recipe.chains"] = _chains_of("peft")
    base = load_recipe(name)
    changes = told.under("recipe.")
    fused = tuple(dict.fromkeys((*base.fused, *told.get("fused", ()))))
    if fused != base.fused:
        changes["fused"] = list(fused)
    if changes.get("adapter_format") == "bf16" and "lora" not in fused:
        changes["chains"] = _chains_of("peft-bf16")
    told.values.pop("recipe.chains", None)
    kept = {key: value for key, value in changes.items() if _differs(base, key, value)}
    return {"inherits": name, "name": name, **kept} if kept else name


def _differs(base: Recipe, key: str, value: Any) -> bool:
    return key in ("loss", "chains") or getattr(base, key) != value


def _chains_of(name: str) -> dict[str, Any]:
    """What a recipe writes after and before an adapter, as a recipe's file has it."""
    return {
        chain.kind: {key: getattr(chain, key) for key in chain.__dataclass_fields__ if key != "kind"}
        for chain in load_recipe(name).chains
        if chain.kind.startswith("Lora")
    }


def _lora(told: ConfigValues, method: str) -> LoraConfig | None:
    data = adapter_data(told)
    if data is None or method in ("full", "pretrain"):
        return None
    if not data.get("target_modules") and not data.get("target_parameters"):
        data.pop("target_modules", None)
    try:
        found = LoraConfig.from_peft(data)
    except ConfigError as error:
        told.problems.append(f"{', '.join(told.files)}: {error}")
        return None
    for note in found.notes:
        told.note(note)
    return found


def _model(told: ConfigValues, folder: Path) -> str:
    """The model's name, or its path where it lies next to the file. A missing model is a problem."""
    name = str(told.get("model"))
    beside = folder / name
    try:
        if is_present(beside) and name not in ("", "."):
            name = str(beside)
    except (OSError, ValueError):
        pass
    try:
        load_model(name, check=False)
    except ConfigError as error:
        told.problems.append(f"{told.places.get('model', 'model')}: {error}")
    return name


def _degrees(told: ConfigValues, devices: int | None) -> dict[str, Any]:
    """Parallel degrees; data parallel over the devices that no other degree takes."""
    degrees = {name: value for name, value in told.under("degree.").items() if value not in (None, 1)}
    group = degrees.pop("shard_group", None)
    others = degrees.get("tp", 1) * degrees.get("cp", 1) * degrees.get("pp", 1)
    known = devices if devices is not None else told.get("devices")
    if "dp" not in degrees and known is not None:
        if known % others:
            told.problems.append(
                f"devices = {known} is not allowed with {others} devices for each replica; expected a multiple"
            )
        degrees["dp"] = max(known // others, 1)
    if "dp" not in degrees:
        told.note("the files do not say how many devices there are; one replica is assumed, give devices for more")
    group = DEVICES_OF_A_NODE if group == "node" else group
    if group is not None and degrees.get("dp", 1) % group == 0 and degrees.get("dp", 1) > group:
        degrees["shard_group"] = group
    if degrees.get("dp") == 1:
        degrees.pop("dp")
    return degrees


def _whole_batch(told: ConfigValues, replicas: int) -> None:
    """DeepSpeed's train_batch_size: micro-batch x accumulation x replicas."""
    whole = told.get("global_batch")
    if whole is None:
        return
    batch = told.get("batch", 1)
    if "accumulate" not in told.values:
        told.values["accumulate"] = max(round(whole / (batch * replicas)), 1)
    made = batch * told.get("accumulate", 1) * replicas
    if made != whole:
        told.problems.append(
            f"{told.places['global_batch']} = {whole} is not {batch} x {told.get('accumulate', 1)} x {replicas} = "
            f"{made} (micro-batch x accumulation x replicas); give devices, or correct the file"
        )


def _raise(told: ConfigValues) -> None:
    of_files = [f"{source.name}: {problem}" for source in told.sources for problem in source.fields.problems]
    problems = list(dict.fromkeys([*of_files, *told.problems]))
    if problems:
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise ConfigError("; ".join(problems[:8]) + more)

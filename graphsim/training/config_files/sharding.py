"""How data-parallel devices shard: FSDP's and DeepSpeed's settings in trainers' files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsim.files.present import expanded, is_file
from graphsim.files.reading import Fields, load_mapping
from graphsim.training.config_files.config_values import Source
from graphsim.units import short

STRATEGIES = {
    "FULL_SHARD": "fsdp", "SHARD_GRAD_OP": "zero2", "NO_SHARD": "ddp", "HYBRID_SHARD": "fsdp",
    "HYBRID_SHARD_ZERO2": "zero2", "1": "fsdp", "2": "zero2", "3": "ddp", "4": "fsdp", "5": "zero2",
}  # fmt: skip
"""Shardings by FSDP's names, and by accelerate's numbers for them (accelerate, utils/constants.py)."""

FSDP = "FSDP"
"""The name, for messages, of a sharding set by several of FSDP's settings."""
STAGES = ("ddp", "zero1", "zero2", "zero3")


def read_fsdp(source: Source, given: Any, key: str, version: int | None = None) -> None:
    """The Trainer's `fsdp`, a text or a list of options, and its `fsdp_config`, a mapping or a file."""
    config = source.fields.raw("fsdp_config")
    if given is None or given is False or given == "" or given == []:
        if isinstance(config, Mapping) and any(says_fsdp(key) for key in config):
            read_fsdp_config(source.below("fsdp_config"), version)
        return
    options = ["full_shard"] if given is True else re.split(r"[\s,]+", given) if isinstance(given, str) else given
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        source.fields.problem(key, "is not allowed; expected options such as 'full_shard auto_wrap'")
        return
    _options(source, [option for option in options if option], key)
    if isinstance(config, str) and not _exists(source.folder, config):
        source.fields.problem("fsdp_config", "names no file next to this one; give the file")
    elif isinstance(config, str):
        read_fsdp_config(_file(source, config), version)
    elif config is not None:
        read_fsdp_config(source.below("fsdp_config"), version)
    _settle(source.told, version)


def _options(source: Source, options: list[str], key: str) -> None:
    for option in options:
        name = option.upper()
        if name in STRATEGIES:
            _tell_strategy(source, name, key)
        elif option == "offload":
            source.told.add("offload", "parameters")
            source.told.add("offload", "optimizer")
        elif option not in ("auto_wrap", ""):
            source.fields.problems.append(
                f"{source.fields.name(key)}: {short(option)} is not known; allowed: full_shard, shard_grad_op, "
                "no_shard, hybrid_shard, hybrid_shard_zero2, offload, auto_wrap"
            )


def says_fsdp(key: str) -> bool:
    """Whether a key of an `fsdp_config` implies that FSDP is used, rather than describing checkpoints only."""
    return key.removeprefix("fsdp_") in ("sharding_strategy", "reshard_after_forward", "offload_params", "version")


def read_fsdp_config(source: Source, version: int | None = None) -> None:
    """accelerate's `fsdp_config`, with or without `fsdp_` before its keys."""
    source.has("accelerate.fsdp")
    for prefix in ("fsdp_", ""):
        found = source.count(f"{prefix}version")
        if found is not None and prefix + "version" in source.fields:
            version = found
        strategy = source.fields.raw(f"{prefix}sharding_strategy")
        if strategy is not None:
            name = str(strategy).upper()
            if name in STRATEGIES:
                _tell_strategy(source, name, f"{prefix}sharding_strategy")
            else:
                source.fields.problem(f"{prefix}sharding_strategy", f"is not known; allowed: {', '.join(STRATEGIES)}")
        _reshard(source, f"{prefix}reshard_after_forward")
        if source.flag(f"{prefix}offload_params"):
            source.told.add("offload", "parameters")
            source.told.add("offload", "optimizer")
        if source.flag(f"{prefix}activation_checkpointing"):
            source.tell("recompute", "full", f"{prefix}activation_checkpointing")
        prefetch = source.text(f"{prefix}backward_prefetch")
        if prefetch in ("NO_PREFETCH",):
            source.tell("recipe.units_in_flight", 1, f"{prefix}backward_prefetch")
        if source.flag(f"{prefix}use_orig_params") is False:
            source.note(f"{prefix}use_orig_params", "units whose weights are all frozen or all trained are assumed")
    _settle(source.told, version)


def _reshard(source: Source, key: str) -> None:
    """FSDP2's reshard_after_forward; accelerate reads FSDP1's strategies there too."""
    value = source.fields.raw(key)
    if isinstance(value, str) and value.upper() in STRATEGIES:
        _tell_strategy(source, value.upper(), key)
    else:
        flag = source.flag(key)
        if flag is not None:
            source.tell("strategy", "fsdp" if flag else "zero2", key)


def _tell_strategy(source: Source, name: str, key: str) -> None:
    source.tell("strategy", STRATEGIES[name], key)
    if name.startswith("SHARD_GRAD_OP") or name == "2":
        source.note(key, "weights are held whole between steps too, as under ZeRO 2")
    if name.startswith("HYBRID") or name in ("4", "5"):
        source.told.suppose("degree.shard_group", "node")


def _settle(told: Any, version: int | None) -> None:
    """The sharding by the stated strategy; FSDP's version is 1 unless stated otherwise."""
    if version is not None:
        told.values["fsdp_version"] = version
    strategy = told.get("strategy", "fsdp")
    if told.places.get("sharding", FSDP) != FSDP:
        place = f"{told.places['sharding']} = {told.get('sharding')}"
        told.problems.append(f"{place} contradicts settings of FSDP; expected one of them")
        return
    told.values["sharding"] = f"fsdp{told.get('fsdp_version', 1)}" if strategy == "fsdp" else strategy
    told.places["sharding"] = FSDP


def read_deepspeed_key(source: Source) -> None:
    """`deepspeed` of a trainer's file: a mapping, or the path of DeepSpeed's JSON."""
    given = source.fields.raw("deepspeed")
    if given is None or given == "":
        return
    if isinstance(given, Mapping):
        read_deepspeed(source.below("deepspeed"))
        return
    if not isinstance(given, str):
        source.fields.problem("deepspeed", "is not allowed; expected a file's path or a mapping")
        return
    if any(Path(name).name == Path(given).name for name in source.told.files):
        return  # it is read separately
    if _exists(source.folder, given):
        read_deepspeed(_file(source, given))
        return
    stage = re.search(r"z(?:ero)?[_-]?(\d)", Path(given).name.lower())
    if stage is None or int(stage[1]) > 3:
        source.fields.problem("deepspeed", "names no file next to this one, and does not say its stage; give the file")
        return
    source.tell("sharding", STAGES[int(stage[1])], "deepspeed")
    source.told.suppose("recipe.master_weights", True)
    if "offload" in given.lower():
        source.told.add("offload", "optimizer")
        if stage[1] == "3":
            source.told.add("offload", "parameters")
    source.note("deepspeed", f"no such file next to this one; taken from its name as ZeRO {stage[1]}")


def read_deepspeed(source: Source) -> None:
    """DeepSpeed's own JSON; `auto` is left to the trainer."""
    zero = source.below("zero_optimization")
    stage = zero.count("stage", least=0)
    if stage is not None and stage > 3:
        zero.fields.problem("stage", "is not allowed; expected a whole number from 0 to 3")
    elif stage is not None:
        zero.tell("sharding", STAGES[stage], "stage")
    for key, what in (("offload_optimizer", "optimizer"), ("offload_param", "parameters")):
        _offload(zero.below(key), what)
    if zero.flag("cpu_offload"):
        source.told.add("offload", "optimizer")
    source.tell("batch", source.count("train_micro_batch_size_per_gpu"), "train_micro_batch_size_per_gpu")
    source.tell("accumulate", source.count("gradient_accumulation_steps"), "gradient_accumulation_steps")
    source.tell("global_batch", source.count("train_batch_size"), "train_batch_size")
    for key in ("bf16", "fp16", "bfloat16"):
        mixed = source.below(key)
        if mixed.flag("enabled"):
            source.told.suppose("recipe.master_weights", True)
        for name in ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale",
                     "auto_cast", "consecutive_hysteresis", "fp16_master_weights_and_grads", "immediate_grad_update",
                     "bf16_master_weights_and_grads", "bf16_optimizer_states", "check_grad_overflow"):  # fmt: skip
            mixed.fields.raw(name)
    clipping = source.fields.raw("gradient_clipping")
    if isinstance(clipping, int | float) and not isinstance(clipping, bool):
        source.tell("recipe.clips", clipping > 0, "gradient_clipping")
    parallel = source.below("tensor_parallel")
    parallel.tell("degree.tp", parallel.count("autotp_size"), "autotp_size")
    source.has("deepspeed")
    zero.has("deepspeed.zero")


def _offload(source: Source, what: str) -> None:
    device = source.text("device")
    if device in ("cpu", "nvme"):
        source.told.add("offload", what)
        if device == "nvme":
            source.note("device", f"{what} lie in the host's memory here, not on a disk")
    elif device not in (None, "none", "auto"):
        source.fields.problem("device", "is not allowed; expected none, cpu or nvme")


def _file(source: Source, name: str) -> Source:
    """The file of that name, next to this one."""
    path = source.folder / expanded(name)
    fields = Fields(load_mapping(path), str(path), lenient=True)
    found = Source(fields=fields, name=str(path), folder=path.parent, told=source.told)
    source.told.sources.append(found)
    return found


def _exists(folder: Path, name: str) -> bool:
    return is_file(folder / expanded(name))

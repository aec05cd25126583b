"""The function `train`: a model, a device, a method, a recipe -> time and memory of one optimizer step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphsim.cost.base import CostModel
from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.deployment.own import checked
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import count, scenarios_in
from graphsim.errors import ConfigError, as_allowed, choices_text
from graphsim.graph import Pass
from graphsim.lora.config import LoraConfig
from graphsim.lora.variants import known
from graphsim.ops.precision import Precision, load_precision
from graphsim.training.context_parallel import check_tokens
from graphsim.training.default_adapter import default_adapter
from graphsim.training.estimate import TrainEstimate
from graphsim.training.estimated import estimate_of
from graphsim.training.merges import require_mergeable
from graphsim.training.methods import load_method, stored_only
from graphsim.training.optimizers import Optimizer, load_optimizer
from graphsim.training.recipe import OFFLOADED, RECOMPUTE, SHARDING, Recipe, load_recipe
from graphsim.training.setup import Method, TrainingSetup
from graphsim.units import Num, checked_number, short

ZERO = ("ddp", "zero1", "zero2", "zero3")
"""The sharding for each `Parallelism.zero`."""


def train(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    batch: Num = 1,
    seq_len: Num = 2048,
    method: str | Method = "lora",
    lora: LoraConfig | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    recipe: Any = "peft",
    accumulate: Num = 1,
    recompute: str | None = None,
    optimizer: str | Optimizer | None = None,
    cost: str | CostModel | None = None,
    *,
    squares: Num | None = None,
    recompute_every: int = 1,
    sharding: str | None = None,
    offload: Sequence[str] | None = None,
    passes: Sequence[Pass] = (),
) -> TrainEstimate:
    """Time, throughput and memory of one optimizer step: forward, backward, update.

    model: a catalog name, a YAML or config.json path, a model folder or a mapping; or a `Deployment`, which then sets
        hardware, parallelism, lora, precision, cost and passes
    hardware: a catalog name, a YAML path or a mapping
    batch: sequences per micro-batch on one data-parallel rank
    seq_len: tokens per sequence
    method: `lora`, `qlora`, `full`, `pretrain`, … (`graphsim.training.methods`); variants of LoRA are set by
        `lora.variant`
    lora: the adapter; by default the deployment's or the model's own, or rank 16 on all linears of attention and MLP
    parallelism: degrees of parallelism, by default one device
    precision: number formats of the weights, by default as published
    recipe: the framework that runs the step: a name of `list_recipes()`, a YAML path or a mapping
    accumulate: micro-batches per step
    recompute: `none`, `full` or `selective`, by default the recipe's own
    optimizer: a name of `list_optimizers()`, by default the recipe's own
    cost: `calibrated`, `roofline` or a function, by default the device's best
    squares: for packed sequences, the sum of squared document lengths per micro-batch, on average
    recompute_every: recompute only every n-th layer
    sharding: `ddp`, `zero1` … `zero3`, `fsdp1`, `fsdp2`, `distributed_optimizer`; by default according to
        `parallelism.zero`, or the recipe's own
    offload: what is kept in host memory: `optimizer`, `parameters`, `activations`; by default the recipe's own
    passes: custom graph passes, see `Deployment`
    Numbers may be arrays of one length: one entry per scenario.
    Raises ConfigError, HardwareError or InfeasibleError for anything that cannot be run as asked.
    """
    setup = setup_of(
        model, hardware, batch=batch, seq_len=seq_len, method=method, lora=lora, parallelism=parallelism,
        precision=precision, recipe=recipe, accumulate=accumulate, recompute=recompute, optimizer=optimizer, cost=cost,
        squares=squares, recompute_every=recompute_every, sharding=sharding, offload=offload, passes=passes,
    )  # fmt: skip
    return estimate_of(setup)


def setup_of(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    *,
    batch: Num = 1,
    seq_len: Num = 2048,
    method: str | Method = "lora",
    lora: LoraConfig | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    recipe: Any = "peft",
    accumulate: Num = 1,
    recompute: str | None = None,
    optimizer: str | Optimizer | None = None,
    cost: str | CostModel | None = None,
    squares: Num | None = None,
    recompute_every: int = 1,
    sharding: str | None = None,
    offload: Sequence[str] | None = None,
    passes: Sequence[Pass] = (),
) -> TrainingSetup:
    """The setup described by the arguments of `train`, checked. Raises ConfigError as `train` does."""
    asked = {
        "hardware": hardware, "parallelism": parallelism, "lora": lora, "precision": precision, "cost": cost,
        "passes": checked(passes) or None,
    }  # fmt: skip
    way = load_recipe(recipe)
    chosen = load_method(method, None if isinstance(method, Method) else way.upcasts)
    deployment = _deployment(model, {name: value for name, value in asked.items() if value is not None}, chosen, way)
    setup = TrainingSetup(
        deployment=deployment,
        method=chosen,
        recipe=way,
        optimizer=load_optimizer(chosen.optimizer or way.optimizer if optimizer is None else optimizer, way.optimizer),
        batch=count("batch", batch),
        seq_len=count("seq_len", seq_len),
        squares=None if squares is None else checked_number("squares", squares, 1.0, whole=False),
        accumulate=count("accumulate", accumulate),
        recompute=_chosen("recompute", way.recompute if recompute is None else recompute, RECOMPUTE),
        recompute_every=checked_number("recompute_every", recompute_every, 1, 10**4, one=True),
        sharding=_sharding(sharding, deployment.parallelism, way),
        offload=tuple(
            _chosen("offload", name, OFFLOADED) for name in _listed(way.offload if offload is None else offload)
        ),
    )
    way = way.shared(setup.sharding, deployment.parallelism.dp)
    upcasts = None if isinstance(method, Method) else way.upcasts
    setup = replace(setup, recipe=way, method=load_method(chosen, upcasts))
    scenarios_in(setup, deployment)
    _check_lengths(setup)
    if chosen.merges:
        require_mergeable(setup)
    return setup


def _deployment(model: ModelRef | Deployment, given: dict[str, Any], method: Method, recipe: Recipe) -> Deployment:
    """The deployment to train, with the method's adapter and the format of its frozen weights."""
    if isinstance(model, Deployment):
        if given:
            names = ", ".join(given)
            raise ConfigError(
                f"{names} given together with a Deployment, which says {'it' if len(given) == 1 else 'them'} already; "
                f"use dataclasses.replace(deployment, {next(iter(given))}=…) for another one"
            )
        found = replace(model, engine=None)
    else:
        found = Deployment(model, **given)
    _ = found.device
    changed: dict[str, Any] = {"lora": _adapter(found, method, recipe) if method.adapters else None}
    if method.base_format and not _is_narrow(found.precision):
        changed["precision"] = load_precision(method.base_format)
    if method.base:
        _check_writable(found.precision, method)
    return replace(found, **changed)


def _check_writable(precision: Precision, method: Method) -> None:
    """Raise ConfigError if trained weights would be in a storage-only format."""
    for own in stored_only(precision):
        raise ConfigError(
            f"method = '{method.name}' trains the model's weights, which precision '{precision.name}' keeps in "
            f"{own.name}, which an optimizer step cannot change; allowed: adapters on such a base, as "
            "method 'qlora' trains, or precision 'bf16'"
        )


def _adapter(deployment: Deployment, method: Method, recipe: Recipe) -> LoraConfig:
    """The adapter as it is trained: separate factors, in the recipe's format, of the method's variant.

    Raises ConfigError if the adapter and the method name different variants.
    """
    lora = deployment.adapter or default_adapter(deployment.model)
    changed: dict[str, Any] = {"strategy": "dynamic", "active_adapters": 1, "adapter_share": 1.0, "shares": ()}
    if recipe.adapter_format != "given":
        changed["lora_dtype"] = recipe.adapter_format
    variant = method.variant if method.variant in known() else ""
    if variant and lora.variant not in ("lora", variant):
        raise ConfigError(
            f"lora.variant = '{lora.variant}' is not allowed with method = '{method.name}'; expected '{variant}'"
        )
    return replace(lora, **changed, variant=variant or lora.variant)


def _is_narrow(precision: Precision) -> bool:
    """Whether weights are in fewer than 16 bits already."""
    return any(own.bytes < 2.0 for own in precision.of_weights)


def _sharding(asked: str | None, parallelism: Parallelism, recipe: Recipe) -> str:
    if asked is not None:
        return _chosen("sharding", asked, SHARDING)
    if not np.any(np.asarray(parallelism.zero)):
        return recipe.sharding
    levels = np.unique(np.asarray(parallelism.zero))
    if len(levels) > 1:
        raise ConfigError(
            f"parallelism.zero = {short(parallelism.zero)} is not allowed here; expected the same in every scenario"
        )
    level = ZERO[int(levels[0])]
    return "fsdp2" if level == "zero3" and recipe.sharding.startswith("fsdp") else level


def _check_lengths(setup: TrainingSetup) -> None:
    """Raise ConfigError if packed documents would be longer than the sequences that they fill, and if context-parallel
    ranks would have no tokens.
    """
    check_tokens(setup.seq_len, setup.deployment.parallelism)
    if setup.squares is None:
        return
    tokens = np.asarray(np.multiply(setup.batch, setup.seq_len))
    if np.any(np.greater(setup.squares, tokens * tokens)) or np.any(np.less(setup.squares, tokens)):
        raise ConfigError(
            f"squares = {short(setup.squares)} is not allowed with batch * seq_len = {short(tokens.tolist())} tokens; "
            "expected a number from there, one document for each token, to its square, one document in all"
        )


def _chosen(name: str, value: Any, allowed: Sequence[str]) -> str:
    value = as_allowed(value, allowed)
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(f"{name} = {short(value)} is not known; {choices_text(str(value), allowed)}")
    return str(value)


def _listed(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)

"""Possible changes of a server, one at a time, with the flag of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from graphsim.deployment.deployment import DEFAULT_ENGINE
from graphsim.errors import ConfigError
from graphsim.ops.precision import load_precision
from graphsim.serving.bottlenecks import Bottlenecks
from graphsim.serving.engine_flags import OF_ENGINES, Flag
from graphsim.serving.scenario import Serving

FEW_ADAPTERS = 8
"""Number of adapters up to which a merged model that switches between them is tried."""


SAME_NAMES = {
    "vllm": ("max_loras", "max_cpu_loras", "max_lora_rank", "max_num_seqs", "max_num_batched_tokens"),
    "sglang": ("max_lora_rank",),
}
"""Settings that have the name of the engine's own flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change: its name, the changed server, and the factor on the number of devices.

    serving: creates that server; raises an error if it is impossible
    """

    name: str
    serving: Callable[[], Serving]
    devices: float = 1.0


def changes_of(serving: Serving, seen: Bottlenecks) -> Iterator[Change]:
    """The changes worth trying on a server, given the limit of its run."""
    if serving.has_slots:
        yield from _slot_changes(serving)
        yield from _load_changes(serving, seen)
    if serving.adapters:
        yield from _strategy_changes(serving)
    yield from _batch_changes(serving, seen)
    yield from _device_changes(serving)


def flag_text(serving: Serving, setting: str, value: Any) -> str:
    """The engine's own flag for a setting; if it has none, the setting, which simulates a feature that the engine
    lacks.
    """
    engine = serving.deployment.under(DEFAULT_ENGINE).engine
    flags = engine.scheduler.flags if engine else ""
    if setting in SAME_NAMES.get(flags, ()):
        return f"--{setting.replace('_', '-')} {value}"
    for name, flag in OF_ENGINES[flags].items():
        for given in (value, True, False):
            if _means(flag, name, given) == {setting: value}:
                switch = isinstance(given, bool) and given is not value
                return f"--{name.replace('_', '-')}" + ("" if switch and given else f" {given}")
    return f"{setting} {value}, for which {flags or 'this engine'} has no flag"


def _means(flag: Flag, name: str, value: Any) -> dict[str, Any]:
    """The settings that a flag with this value stands for; none if the value is not valid for it."""
    try:
        return flag.settings(flag.check(name, value))
    except ConfigError:
        return {}


def _slot_changes(serving: Serving) -> Iterator[Change]:
    """More and fewer slots, and slots of no more rank than adapters have."""
    slots, registered = serving.rules.adapters.max_loras, serving.adapters
    for count in dict.fromkeys((2 * slots, 4 * slots, slots // 2, registered)):
        if 0 < count <= registered and count != slots:
            yield Change(
                name=f"{'more' if count > slots else 'fewer'} slots ({flag_text(serving, 'max_loras', count)})",
                serving=lambda count=count: serving.with_slots(count),  # type: ignore[misc]
            )
    least = serving.largest_rank
    if serving.reserved_rank > least:
        yield Change(
            name=f"no more rank than adapters have ({flag_text(serving, 'max_lora_rank', least)})",
            serving=lambda: serving.with_lora(max_lora_rank=least),
        )


def _load_changes(serving: Serving, seen: Bottlenecks) -> Iterator[Change]:
    """Changes that make loads fewer or shorter, if loads matter."""
    rules, registered = serving.rules.adapters, serving.adapters
    if seen.loads == 0:
        return
    if seen.disk_loads and rules.max_cpu_loras < registered:
        yield Change(
            name=f"all adapters in the host's memory ({flag_text(serving, 'max_cpu_loras', registered)})",
            serving=lambda: serving.with_limits(max_cpu_loras=registered),
        )
    if rules.eviction == "lru" and rules.max_loras < registered:
        yield Change(
            name=f"the least often used adapter leaves first ({flag_text(serving, 'eviction', 'lfu')})",
            serving=lambda: serving.with_limits(eviction="lfu"),
        )
    if not rules.prefetch and rules.max_loras < registered:
        yield Change(
            name=f"adapters of the queue are loaded ahead ({flag_text(serving, 'prefetch', rules.max_loras)})",
            serving=lambda: serving.with_limits(prefetch=rules.max_loras),
        )
    if rules.loads == "stall":
        yield Change(
            name=f"loads beside the steps ({flag_text(serving, 'loads', 'overlapped')})",
            serving=lambda: serving.with_limits(loads="overlapped"),
        )


def _strategy_changes(serving: Serving) -> Iterator[Change]:
    """Other ways to serve the adapters."""
    if serving.strategy != "dynamic":
        slots = min(serving.adapters, FEW_ADAPTERS)
        yield Change(
            name=f"adapters applied dynamically (strategy dynamic, {flag_text(serving, 'max_loras', slots)})",
            serving=lambda: serving.with_strategy("dynamic").with_slots(slots),
        )
        return
    if serving.adapters <= FEW_ADAPTERS:
        yield Change(
            name="merged weights that switch between adapters (strategy merged)",
            serving=lambda: serving.with_strategy("merged"),
        )
    yield Change(
        name="the hottest adapter merged, the others dynamic (strategy mixed)",
        serving=lambda: serving.with_strategy("mixed"),
    )
    yield Change(
        name="adapters paged with the KV cache (strategy paged)", serving=lambda: serving.with_strategy("paged")
    )


def _batch_changes(serving: Serving, seen: Bottlenecks) -> Iterator[Change]:
    """Other sizes of a step."""
    rules = serving.rules
    tokens, sequences = rules.max_num_batched_tokens, rules.max_num_seqs
    for count in (2 * tokens, tokens // 2):
        if count >= sequences:
            yield Change(
                name=f"{'larger' if count > tokens else 'smaller'} steps "
                f"({flag_text(serving, 'max_num_batched_tokens', count)})",
                serving=lambda count=count: serving.with_limits(max_num_batched_tokens=count),  # type: ignore[misc]
            )
    if seen.waiting.get("places", 0.0) > 0.05 and 2 * sequences <= tokens:
        yield Change(
            name=f"more sequences at a time ({flag_text(serving, 'max_num_seqs', 2 * sequences)})",
            serving=lambda: serving.with_limits(max_num_seqs=2 * sequences),
        )


def _device_changes(serving: Serving) -> Iterator[Change]:
    """Other formats, and more devices."""
    deployment = serving.deployment
    if deployment.precision.kv.bytes > 1:
        precision = load_precision(deployment.precision, kv="fp8")
        yield Change(
            name=f"the KV cache in fp8 (--precision {precision.name})",
            serving=lambda: serving.with_deployment(precision=precision),
        )
    if deployment.precision.weights.bytes >= 2:
        yield Change(
            name="weights and KV cache in fp8 (--precision fp8,kv=fp8)",
            serving=lambda: serving.with_deployment(precision="fp8,kv=fp8"),
        )
    degree = int(deployment.parallelism.tp)
    yield Change(
        name=f"twice the devices (--tp {2 * degree})", devices=2.0,
        serving=lambda: serving.with_deployment(parallelism=replace(deployment.parallelism, tp=2 * degree)),
    )  # fmt: skip

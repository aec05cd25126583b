"""The cheapest fleet that keeps its limits, among all choices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.deployment.deployment import Deployment, ModelRef
from graphsim.errors import ConfigError, InfeasibleError, choices_text
from graphsim.hardware import load_hardware
from graphsim.serving.fleet.size_choices import DEGREES, DESCRIBED, choices_of
from graphsim.serving.fleet.size_job import Question
from graphsim.serving.fleet.size_kept import Kept
from graphsim.serving.fleet.size_search import Progress, SizeSearch
from graphsim.serving.fleet.size_table import size_frame, why_none
from graphsim.serving.goodput import checked_limits
from graphsim.sweeps.best import prices_of
from graphsim.sweeps.digest import digest_of
from graphsim.sweeps.workers import Workers, standing
from graphsim.traffic.traffic import Traffic
from graphsim.units import as_number, short

if TYPE_CHECKING:
    import pandas as pd

RUNNERS_UP = 5
"""Fleets behind the cheapest that are simulated even though they cost more."""
LIMITS = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_s"}


def size_fleet(
    model: ModelRef,
    traffic: Traffic,
    slo: Mapping[str, float],
    choices: Mapping[str, Any],
    *,
    price_per_hour: Mapping[str, float] | float | None = None,
    attainment: float = 0.99,
    runners_up: int = RUNNERS_UP,
    executor: Workers | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **served: Any,
) -> pd.DataFrame:
    """Find the cheapest fleet that meets the limits: devices, their number, parallelism and router.

    model: as in `serve`; traffic: the requests to the whole fleet
    slo: latency limits of a request in seconds (`ttft_s`, `tpot_s`, `e2e_s`), and `attainment` in place of that
        argument; empty where the traffic's classes have their own limits
    choices: `hardware` (required), `tp`, `pp`, `ep`, `cp`, `engine`, `precision`, `router`, `max_loras` (slots) and any
        setting of the engine by its flag, each one value or a list; `replicas`: the allowed numbers, 1 to 64 by default
    price_per_hour: of one device, as in `best`; without it, the cheapest fleet is the one with the fewest devices
    attainment: share of requests that must meet all limits
    runners_up: number of fleets after the cheapest that are simulated; choices that cannot cost less than these are
        left out
    executor: any `concurrent.futures.Executor`, or a function that creates one; it does not change the answer. Work
        that a broken executor loses is repeated by a new one, or in this process
    resume: a file of results, to resume from after an interruption; progress: called with the number of choices done
        and a line of text
    served: further arguments of `serve` (lora, limits, strategy, host, …)
    Columns: one row per choice, the cheapest first: the choices, replicas (the fewest that meet the limits, or the most
    tried if none do; 0 without a run), devices, cost_per_hour and cost_per_token with prices, attainment, throughputs,
    mean and p99 of TTFT, TPOT and E2E, limit, runs, kept, and `reason`: why it is not the first. `attrs["notes"]` holds
    caveats.
    Raises InfeasibleError if no fleet meets the limits, ConfigError for an argument that is not allowed.
    """
    choices, served = _taken_apart(choices, served)
    if price_per_hour is None:
        price_per_hour = choices.pop("price_per_hour", None)
    asked = choices_of(choices)
    limits, share = _limits(slo, attainment)
    _check_question(model, traffic, limits)
    known = {load_hardware(ref).name: ref for ref in asked.hardware}
    prices = prices_of(price_per_hour, known)
    question = Question(
        model=model, traffic=traffic, limits=limits, attainment=share, replicas=asked.replicas, served=served
    )
    digest = digest_of(question.model, traffic, limits, share, asked.rows, asked.replicas, served, runners_up)
    kept = Kept(resume, digest, len(asked.rows))
    workers, close = standing(executor)
    search = SizeSearch(question, asked, prices, _at_least_one(runners_up), kept, workers, progress)
    try:
        offers = search.offers()
    finally:
        kept.close()
        close()
    if not any(offer.sized is not None and offer.sized.kept for offer in offers):
        raise InfeasibleError(why_none(question, offers))
    return size_frame(question, asked.names, offers, priced=prices is not None)


def _check_question(model: ModelRef, traffic: Traffic, limits: Mapping[str, float]) -> None:
    """Raise ConfigError for arguments that do not allow sizing."""
    if isinstance(model, Deployment):
        raise ConfigError("size_fleet: model is a Deployment, which says its device already; expected a model")
    if not isinstance(traffic, Traffic):
        raise ConfigError(
            f"size_fleet: traffic = {short(traffic)} is not a Traffic; expected gs.Traffic.poisson(…) or .from_file(…)"
        )
    if not limits and not any(_has_limit(each) for each in traffic.classes):
        raise ConfigError("size_fleet: slo has no limit to keep; expected ttft_s, tpot_s or e2e_s in seconds")


def _taken_apart(choices: Any, served: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices, including a router given among the arguments of `serve`; and the other arguments.

    Raises ConfigError for settings given twice or that belong to the choices.
    """
    if not isinstance(choices, Mapping):
        choices_of(choices)
    found, rest = dict(choices), dict(served)
    for name in ("replicas", "scaling"):
        if name in rest:
            raise ConfigError(
                f"size_fleet: {name} is the value to be found; give the allowed numbers as choices.replicas"
            )
    for name in ("router", "view_age_s"):
        if name in rest:
            if name in found:
                raise ConfigError(f"size_fleet: {name} and choices.{name} are both given; leave one out")
            found[name] = rest.pop(name)
    twice = [name for name in DESCRIBED if name in rest and name in found]
    degrees = [name for name in DEGREES if name in found and "parallelism" in rest]
    for name, other in [*((name, name) for name in twice), *((name, "parallelism") for name in degrees)]:
        raise ConfigError(f"size_fleet: {other} and choices.{name} are both given; leave one out")
    return found, rest


def _limits(slo: Any, attainment: Any) -> tuple[dict[str, float], float]:
    """Limits by the names of `gs.capacity`, and the share of requests that must keep them."""
    if not isinstance(slo, Mapping):
        raise ConfigError(
            f"size_fleet: slo = {short(slo)} is not allowed; expected a mapping such as "
            "{'ttft_s': 0.5, 'tpot_s': 0.05}"
        )
    found: dict[str, Any] = {}
    for given, value in slo.items():
        name = LIMITS.get(str(given), str(given))
        if name == "attainment":
            attainment = value
        elif name not in LIMITS.values():
            known = (*LIMITS.values(), "attainment")
            raise ConfigError(f"size_fleet: slo.{given} is not known; {choices_text(str(given), known)}")
        elif name in found:
            raise ConfigError(f"size_fleet: slo.{name} is given twice; leave one out")
        else:
            found[name] = value
    for name, value in found.items():
        if not isinstance(as_number(value), float):
            raise ConfigError(f"size_fleet: slo.{name} = {short(value)} is not allowed; expected seconds above 0")
    checked_limits(dict(found))
    share = as_number(attainment)
    if not isinstance(share, float) or not 0.0 < share <= 1.0:
        raise ConfigError(
            f"size_fleet: attainment = {short(attainment)} is not allowed; expected a share above 0, up to 1"
        )
    return {name: float(value) for name, value in found.items()}, share


def _has_limit(each: Any) -> bool:
    return any(getattr(each, name) is not None for name in LIMITS.values())


def _at_least_one(runners_up: Any) -> int:
    if not isinstance(runners_up, int) or isinstance(runners_up, bool) or runners_up < 1:
        raise ConfigError(
            f"size_fleet: runners_up = {short(runners_up)} is not allowed; expected a whole number from 1"
        )
    return runners_up

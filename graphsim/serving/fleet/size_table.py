"""The answer of a search for a fleet as a table: the cheapest first, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.serving.capacity_runs import limits_text
from graphsim.serving.fleet.size_choices import shown
from graphsim.serving.fleet.size_job import Bound, Question, SizeResult, missed
from graphsim.units import amount_text

if TYPE_CHECKING:
    import pandas as pd

FEW_REQUESTS = 500
"""Fewer requests say little on the slowest hundredth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A choice.

    unit: what one replica costs an hour
    beside: what workers cost that only compute prompts
    sized: None where it was not simulated
    cap: the cost above which it is not simulated
    """

    choice: Mapping[str, Any]
    unit: float
    bound: Bound
    sized: SizeResult | None
    cap: float
    beside: float = 0.0

    @property
    def cost(self) -> float:
        """Cost of the fewest replicas that meet the limits; inf if there are none."""
        return self.beside + self.unit * self.sized.replicas if self.sized is not None and self.sized.kept else inf


def size_frame(question: Question, names: Sequence[str], offers: Sequence[Offer], *, priced: bool) -> pd.DataFrame:
    """One row per choice: kept ones by cost, of these alike by attainment and then by p99 TTFT, then those that do
    not.
    """
    import pandas as pd

    order = sorted(range(len(offers)), key=lambda i: (*_place(offers[i]), i))
    first = offers[order[0]]
    rows = []
    for i in order:
        offer = offers[i]
        row: dict[str, Any] = {name: shown(name, offer.choice[name]) for name in names}
        row |= _numbers(offer, priced)
        row["reason"] = "" if offer is first else _why(question, offer, first, priced)
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.index = frame.index + 1
    frame.attrs["notes"] = list(_notes(question))
    return frame


def _place(offer: Offer) -> tuple[float, float, float, float]:
    sized = offer.sized
    if sized is None or not sized.kept:
        attained = -sized.attainment if sized is not None and sized.attainment == sized.attainment else 0.0
        return inf, attained, inf, 0.0 if sized is not None else 1.0
    return offer.cost, -sized.attainment, sized.figures.get("p99_ttft_ms", inf), 0.0


def _numbers(offer: Offer, priced: bool) -> dict[str, Any]:
    sized, figures = offer.sized, {} if offer.sized is None else offer.sized.figures
    replicas = sized.replicas if sized is not None else 0
    output = figures.get("output_throughput", np.nan)
    cost = offer.beside + replicas * offer.unit if replicas else np.nan
    devices = offer.bound.beside + replicas * offer.bound.devices if replicas else 0
    row: dict[str, Any] = {
        "replicas": replicas, "devices": devices,
        **({"cost_per_hour": cost, "cost_per_token": cost / 3600.0 / output if output else np.nan} if priced else {}),
        "kept": sized is not None and sized.kept, "attainment": np.nan if sized is None else sized.attainment,
        "request_throughput": figures.get("request_throughput", np.nan), "output_throughput": output,
    }  # fmt: skip
    for name, key in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el")):
        row |= {f"{what}_{name}_s": figures.get(f"{what}_{key}_ms", np.nan) / 1e3 for what in ("mean", "p99")}
    return row | {"limit": "" if sized is None else sized.limit, "runs": 0 if sized is None else sized.runs}


def _why(question: Question, offer: Offer, first: Offer, priced: bool) -> str:
    """One sentence."""
    sized, what = offer.sized, "an hour" if priced else "devices"
    if offer.bound.reason or (sized is not None and sized.reason):
        return offer.bound.reason or (sized.reason if sized is not None else "")
    if sized is None:
        least = next((n for n in question.replicas if n >= offer.bound.least), question.replicas[-1])
        cost = offer.beside + least * offer.unit
        return (
            f"needs at least {least} replica{'s' if least > 1 else ''}, {cost:.4g} {what}, which is more "
            f"than the runners-up cost ({offer.cap:.4g})"
        )
    if not sized.kept:
        text = missed(question, sized)
        dear = offer.beside + offer.unit * (sized.replicas + 1) > offer.cap and sized.replicas < question.replicas[-1]
        return f"{text}; more of them cost more than the runners-up" if dear else text
    if offer.cost > first.cost:
        return f"costs {offer.cost / first.cost:.2f} times as much"
    own = first.sized.attainment if first.sized is not None else 1.0
    if sized.attainment < own:
        return f"costs the same; {sized.attainment:.2%} of the requests keep the limits, {own:.2%} of the first one's"
    return "costs the same, and its slowest first tokens are no faster"


def _notes(question: Question) -> Sequence[str]:
    requests = len(question.traffic.table())
    found = []
    if requests < FEW_REQUESTS and question.attainment > 0.95:
        found.append(
            f"{requests:,} requests tell little of the slowest {1.0 - question.attainment:.1%}: more of them would"
        )
    return found


def why_none(question: Question, offers: Sequence[Offer]) -> str:
    """One sentence: the nearest miss, or why nothing can be run."""
    tried = [(o.sized, o.choice) for o in offers if o.sized is not None and o.sized.attainment == o.sized.attainment]
    limits = limits_text(question.limits)
    share = amount_text(question.attainment, "share")
    what = f"none of {len(offers):,} choices keeps {limits} for {share} of the requests"
    if not tried:
        reasons = [offer.bound.reason or (offer.sized.reason if offer.sized else "") for offer in offers]
        most = max(set(reasons), key=lambda text: (reasons.count(text), text))
        return f"{what}: {most}" + (f" ({reasons.count(most)} of them)" if len(offers) > 1 else "")
    found, choice = max(tried, key=lambda pair: pair[0].attainment)
    named = ", ".join(f"{name} {shown(name, value)}" for name, value in choice.items())
    return f"{what}; nearest is {named}: {missed(question, found)}"

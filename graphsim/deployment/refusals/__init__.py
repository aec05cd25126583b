"""What an engine or a model cannot run: the single place that every function checks.

With most engines, a broken rule is an InfeasibleError, and the `reason` of a table row. With one whose profile says
`notes_only` (`reference`) it is a note, and the `reason` of a row that still has numbers. What no graph can represent
is refused with every engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graphsim.deployment.context import has_ranks
from graphsim.deployment.cutting import has_experts
from graphsim.deployment.refusals.adapters import of_adapters
from graphsim.deployment.refusals.broken import Broken
from graphsim.deployment.refusals.devices import of_devices
from graphsim.deployment.refusals.packing import of_packing
from graphsim.deployment.refusals.requests import of_encoder_decoders, of_requests
from graphsim.deployment.refusals.shards import of_shards
from graphsim.deployment.refusals.training import of_training
from graphsim.deployment.scenarios import has_arrays
from graphsim.lora.profile import EngineProfile, load_profile

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment
    from graphsim.deployment.inference import Requests
    from graphsim.symbolic.guard import Guard

REFERENCE = "reference"
"""The engine of a deployment that names none."""


def require_runs(deployment: Deployment, requests: Requests | None = None) -> None:
    """Raise InfeasibleError, in the engine's own words, for what cannot be run in some scenario.

    requests: a batch of requests, if there is one
    """
    profile = _profile(deployment)
    for one in _broken(deployment, profile, requests):
        if one.always or not profile.notes_only:
            guard = one.guard(profile)
            raise guard.error(guard.text())


def refusals_noted(deployment: Deployment, requests: Requests) -> tuple[str, ...]:
    """What serving engines refuse but the deployment's engine only notes; once per rule."""
    profile = _profile(deployment)
    if not profile.notes_only:
        return ()
    found: dict[str, str] = {}
    for one in _broken(deployment, profile, requests):
        found.setdefault(one.rule, one.guard(profile).text())
    return tuple(found.values())


def reasons_of(
    deployment: Deployment, requests: Requests, shape: tuple[int, ...]
) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """For each scenario of a grid, why it cannot be run ("" where it can), and whether it is still simulated.

    shape: of the grid, to which all numbers of deployment and requests broadcast
    """
    profile = _profile(deployment)
    reasons, simulated = np.full(shape, "", dtype=object), np.ones(shape, dtype=bool)
    for one in _broken(deployment, profile, requests):
        first = (reasons == "") & np.broadcast_to(np.asarray(one.where), shape)
        reasons = np.where(first, one.guard(profile).texts(shape), reasons)
        if one.always or not profile.notes_only:
            simulated &= ~np.broadcast_to(np.asarray(one.where), shape)
    return reasons, simulated


def guards_of(deployment: Deployment, requests: Requests) -> list[Guard]:
    """All rules by which a deployment with symbols for its numbers refuses requests, as conditions over these.

    Rules that the engine only notes are not among them.
    """
    profile = _profile(deployment)
    every = [*_asked(deployment, profile), *of_requests(deployment, profile, requests)]
    refusing = [one for one in every if one.always or not profile.notes_only]
    return [one.guard(profile) for one in sorted(refusing, key=lambda one: not one.always)]


def _profile(deployment: Deployment) -> EngineProfile:
    return deployment.engine if deployment.engine is not None else load_profile(REFERENCE)


def _broken(deployment: Deployment, profile: EngineProfile, requests: Requests | None) -> Iterator[Broken]:
    """The broken rules, unconditional refusals first."""
    every = [*_of_deployment(deployment, profile)]
    if requests is not None:
        every += [one for one in of_requests(deployment, profile, requests) if one.any]
    yield from (one for one in every if one.always)
    yield from (one for one in every if not one.always)


def _of_deployment(deployment: Deployment, profile: EngineProfile) -> tuple[Broken, ...]:
    """The rules that any batch of requests breaks; computed once for each deployment, except for arrays, which may be
    changed.
    """
    if has_arrays(deployment):
        return _whatever_requests(deployment, profile)
    return deployment.once(_whatever_requests, profile)


def _whatever_requests(deployment: Deployment, profile: EngineProfile) -> tuple[Broken, ...]:
    return tuple(one for one in _asked(deployment, profile) if one.any)


def _asked(deployment: Deployment, profile: EngineProfile) -> Iterator[Broken]:
    yield from of_devices(deployment, profile)
    yield from of_training(deployment)
    if has_ranks(deployment.parallelism):
        from graphsim.deployment.refusals.context import of_context

        yield from of_context(deployment, profile)
    yield from of_encoder_decoders(deployment, profile)
    yield from of_adapters(deployment, profile, has_experts=has_experts(deployment.model))
    if profile.limits.get("blocks") or profile.limits.get("width"):
        yield from of_shards(deployment, profile.limits)
    if profile.limits.get("packed"):
        yield from of_packing(deployment)

"""The formulas of a deployment as a JavaScript object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphsim.compile.causes import CAUSES
from graphsim.compile.formulas import Formulas
from graphsim.compile.structure import has_variable_rates, recordable
from graphsim.cost.power import power_of
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.errors import ConfigError, GraphsimError
from graphsim.export.explore.deployments import Deployments
from graphsim.hardware import Hardware
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.javascript import Script

TIMES = ("ttft_s", "one_time_s", "level_s")
"""Outputs before those of `Memory`: time to first token, one-time work, and a step's time without the context."""


def all_printed(script: Script, deployments: Deployments, requests: Requests) -> dict[str, str]:
    """JavaScript objects of all deployments by key; those that cannot be priced or recorded move to the refused ones.

    Raises the first such error if none is left.
    """
    made: dict[str, str] = {}
    first: GraphsimError | None = None
    for choice, deployment in list(deployments.found.items()):
        try:
            made[choice.key] = printed(script, deployment, requests)
        except GraphsimError as error:
            del deployments.found[choice]
            deployments.refused[choice.key] = str(error)
            first = first or error
    if not made and first is not None:
        raise first
    return made


def printed(script: Script, deployment: Deployment, requests: Requests) -> str:
    """The JavaScript object that the page's `figuresOf` takes: functions of named inputs, and sums over the context.

    Raises ConfigError if an operation has no formula, as with a cost function that branches on sizes.
    """
    inference = Inference(deployment=deployment, requests=requests)
    if not recordable(inference):
        raise ConfigError("explore takes single numbers; degrees of parallelism or rates of the hardware are arrays")
    try:
        return _object(script, inference)
    except NotRecordable as error:
        raise ConfigError(f"explore has no formula for {deployment!r}: {error}") from None


def _object(script: Script, inference: Inference) -> str:
    formulas = Formulas(inference, rates=has_variable_rates(inference))
    sums = [f"{{inputs:{script.names(total.inputs)},nodes:{total.nodes},parts:{script.growing(total, total.inputs)}}}"
            for total in formulas.growing]  # fmt: skip
    parts = {
        "fixed": _function(
            script, [formulas.first_token, formulas.one_time, formulas.level, *formulas.memory_formulas.values()]
        ),
        "growing": f"[{','.join(sums)}]",
        "causes": _function(script, _causes(formulas)),
        "guards": script.guards(formulas.guards),
        **_activity(script, formulas),
    }
    return f"{{{','.join(f'{name}:{text}' for name, text in parts.items())}}}"


STATED = tuple(name for name in CAUSES if name != "other_s")
"""Causes whose time a page's functions return; the page computes the remainder of the total."""


def _causes(formulas: Formulas) -> list[Any]:
    """Seconds by each of STATED: first those of the first token, then those of a further token at the context."""
    found: dict[tuple[str, str], Any] = {}
    for key, seconds in formulas.causes.items():
        found[key.quantity, key.cause] = found.get((key.quantity, key.cause), 0.0) + seconds
    return [found.get((quantity, cause), 0.0) for quantity in ("ttft_s", "step_s") for cause in STATED]


def _activity(script: Script, formulas: Formulas) -> dict[str, str]:
    """Memory traffic and matrix flops of the steps; empty if the device states no peak for the format in use."""
    if formulas.activity is None:
        return {}
    try:
        return {"activity": _function(script, formulas.activity.asked)}
    except NotRecordable:
        return {}


def watts_printed(script: Script, devices: Iterable[Hardware]) -> dict[str, str]:
    """For each device with known power, a function from the used shares of its bandwidth and peak to watts."""
    tape = Tape()
    parts: Any = tape.variable("memory"), tape.variable("compute")
    known = {device.name: power_of(device) for device in devices}
    return {
        name: script.function(["memory", "compute"], [power.watts(*parts)])
        for name, power in known.items()
        if power is not None
    }


def _function(script: Script, outputs: Sequence[Any]) -> str:
    """A JavaScript function together with the names of its inputs."""
    inputs = _inputs(outputs)
    return f"[{script.names(inputs)},{script.function(inputs, outputs)}]"


def _inputs(outputs: Sequence[Any]) -> list[str]:
    return sorted({name for output in outputs if isinstance(output, Expr) for name in output.free})

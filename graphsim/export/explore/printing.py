"""The formulas of a deployment as an object of JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphsim.compile.formulas import Formulas, recordable
from graphsim.compile.symbols import CONTEXT
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference, Requests
from graphsim.errors import ConfigError, GraphsimError
from graphsim.export.explore.deployments import Deployments
from graphsim.export.html_page import json_text
from graphsim.symbolic.expr import Expr, NotRecordable
from graphsim.symbolic.javascript import Script

TIMES = ("ttft_s", "one_time_s", "level_s")
"""Outputs in front of those of `Memory`: to the first token, once before serving, and of a step without the context."""


def all_printed(script: Script, deployments: Deployments, requests: Requests) -> dict[str, str]:
    """The objects of all deployments by key; what cannot be priced or recorded joins those that are refused.

    Raises the first reason where none is left.
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
    """An object that `evaluate` of the page takes: names of inputs, a function of them, and sums over the context.

    Raises ConfigError where an operation has no formula, as under a cost function that branches by sizes.
    """
    inference = Inference(deployment=deployment, requests=requests)
    if not recordable(inference):
        raise ConfigError("explore takes single numbers; degrees of parallelism or rates of the hardware are arrays")
    try:
        formulas = Formulas(inference)
        return _object(script, formulas)
    except NotRecordable as error:
        raise ConfigError(f"explore has no formula for {deployment!r}: {error}") from None


def _object(script: Script, formulas: Formulas) -> str:
    outputs = [formulas.first_token, formulas.one_time, formulas.level, *formulas.memory_formulas.values()]
    inputs = _inputs(outputs)
    sums = [f"{{inputs:{_names(total.inputs)},nodes:{total.nodes},parts:{script.growing(total, total.inputs)}}}"
            for total in formulas.growing]  # fmt: skip
    return f"{{inputs:{_names(inputs)},fixed:{script.function(inputs, outputs)},growing:[{','.join(sums)}]}}"


def _inputs(outputs: Sequence[Any]) -> list[str]:
    names = {name for output in outputs if isinstance(output, Expr) for name in output.free}
    return sorted(names - {CONTEXT})


def _names(names: Sequence[str]) -> str:
    """Names of variables as a list of JavaScript; a module's name in a rank pattern may hold anything."""
    return json_text(list(names))

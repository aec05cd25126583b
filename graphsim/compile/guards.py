"""The guards of a deployment's formulas: bounds of the inputs, and the checks of engines and passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.compile.manifest import Input, inputs_of
from graphsim.deployment.inference import Inference
from graphsim.deployment.refusals import guards_of as refusals_of
from graphsim.deployment.scenarios import not_counted
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.guard import Figure, Guard
from graphsim.symbolic.guards import Guards
from graphsim.units import not_within


def guards_of(given: Inference, symbolic: Inference, tape: Tape) -> Guards:
    """All checks that depend on an inference's numbers, with the error messages of `simulate`.

    given: the inference with numbers
    symbolic: the same with symbols of the tape, from which the graphs were built
    """
    bounds = [_bound(tape, one) for one in inputs_of(given)]
    lora = symbolic.deployment.adapter
    if lora is not None:
        from graphsim.lora.config import require_named

        require_named(lora.active_adapters, sum(share > 0.0 for share in lora.shares))
    refused = refusals_of(symbolic.deployment, symbolic.requests)
    return Guards([*bounds, *tape.guards.values(), *refused])


_REQUESTS = ("batch", "input_tokens", "output_tokens")


def _bound(tape: Tape, one: Input) -> Guard:
    """The bounds of an input, in the same words as the check of numbers."""
    value: Any = tape.variable(one.name)
    within = np.greater_equal(value, one.least) & np.less_equal(value, one.most)
    if one.whole:
        within = within & np.equal(value, np.floor(value))
    if one.name in _REQUESTS:
        about, words = one.name, f"is {not_counted()}"
    else:
        about = "parallelism.dp" if one.name == "dp" else f"lora.{one.name}"
        words = not_within(one.least, one.most, whole=one.whole)
    return Guard(
        rule="bounds", about=about, broken=np.where(within, False, True),
        sentence=(f"{about} = ", Figure(value=value, exact=True), f" {words}"),
    )  # fmt: skip

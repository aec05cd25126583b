"""Why a deployment cannot be traced into formulas, to explain slow evaluation."""

from __future__ import annotations

from graphsim.compile.formulas import Formulas
from graphsim.compile.structure import has_variable_rates, recordable
from graphsim.deployment.inference import Inference
from graphsim.symbolic.expr import NotRecordable, Tape
from graphsim.symbolic.kernel import Opaque


def why_not_recorded(inference: Inference) -> list[str]:
    """One sentence for each line of code that used a symbol in an unsupported way; none if everything is recorded.

    `gemm.py:90: numpy.median of a symbol` says that the price at that line is a call of a function, which is slower
    than a formula and equally right. If the line is in a pass, nothing is recorded, and every call runs through the
    passes.
    """
    if not recordable(inference):
        return ["degrees of parallelism or sizes of the hardware are arrays, each of which has a graph of its own"]
    tape = Tape()
    try:
        Formulas(inference, tape, rates=has_variable_rates(inference))
    except NotRecordable as error:
        return [str(error)]
    return refusals(tape)


def refusals(tape: Tape) -> list[str]:
    """Why functions that a tape calls were not recorded themselves, each reason once."""
    return list(dict.fromkeys([node.function.refused for node in tape.nodes if isinstance(node.function, Opaque)]))

"""An inference's numbers without its graph: the passes record their formulas once for each structure.

What shapes the graph (model, kind of device, prices, targets, strategy, degrees of parallelism but dp) is a structure;
batch, lengths, dp, ranks, adapters and the rates of the device are variables. Evaluating a structure gives what the
passes give, to rounding. A structure whose passes need actual numbers is not recorded; it runs through the passes
every time, and `graphsim.compile.reasons` names the line that needs them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphsim.compile.activity import ActivityFormulas, activity_formulas
from graphsim.compile.evaluated import Evaluated, Inputs
from graphsim.compile.lowered import Lowered, lowered_of
from graphsim.compile.structure import has_variable_rates, kind_of_prices, recordable, structure_of
from graphsim.compile.symbols import CONTEXT, constants_of
from graphsim.compile.uncollected import uncollected
from graphsim.cost.base import annotate
from graphsim.cost.rates import has_many_rates, rates_of
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import Memory
from graphsim.graph import walk
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.guards import Guards
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program
from graphsim.symbolic.substitute import names_of

if TYPE_CHECKING:
    from graphsim.compile.causes import Causes
    from graphsim.compile.manifest import Input

__all__ = ["Formulas", "formulas_of", "recordable"]


class Formulas(Evaluated):
    """The formulas of one structure, and the programs that evaluate them for the values of its variables.

    first_token, step: the time to the first token, and of one decode step after `context` tokens
    one_time: of the work that is done once before serving; level, growing: the part of a step that does not grow with
        the context, and the sums of the parts that do
    """

    def __init__(
        self, inference: Inference, tape: Tape | None = None, *, rates: bool = False, constants: bool = False
    ) -> None:
        """rates: whether the device's rates are variables too, by the names of `graphsim.cost.rates.rates_of`; else
        they are those of the inference's device.
        constants: whether the fitted constants of its prices are, by the names of `constants`; surfaces are not
        Raises NotRecordable if a pass needs an actual number."""
        graphs = (lowered_of(inference) if tape is None else None) or Lowered(inference, tape or Tape())
        self._given = inference
        self._tape, step = graphs.tape, graphs.step
        self._inference = graphs.on(inference, rates=rates, constants=constants)
        context: Any = self._tape.variable(CONTEXT)
        prompt = annotate(graphs.prompt, self._inference.hardware, self._inference.price)
        self.first_token, self.step = self._inference.first_token_s(prompt), self._inference.step_s(context, step)
        self.level, growing = _by_context(self.step)
        self.one_time = self._inference.one_time_s() if any(op.once for _, op, _ in walk(prompt)) else 0.0
        self.fixed = Program([self.first_token, self.one_time, self.level])
        self.growing = [GrowingSum(growing[names], CONTEXT) for names in sorted(growing, key=sorted)]
        self._graphs = prompt, step

    @property
    def constants(self) -> dict[str, float]:
        """The fitted constants of the inference's own prices, by name: inputs where they were asked for."""
        return constants_of(self._given)

    @property
    def manifest(self) -> tuple[Input, ...]:
        """The inputs of the times and of memory: unit, bounds and default of each."""
        outputs = [self.first_token, self.one_time, self.step, *self.memory_formulas.values()]
        names = {name for output in outputs if isinstance(output, Expr) for name in output.free}
        from graphsim.compile.manifest import manifest_of

        return manifest_of(self._given, names)

    @cached_property
    def guards(self) -> Guards:
        """All checks of the inputs, with the error messages of `simulate`."""
        from graphsim.compile.guards import guards_of

        return guards_of(self._given, self._inference, self._tape)

    @cached_property
    def noted(self) -> Guards:
        """The guards that passes added: checks of numbers that are made nowhere else."""
        return Guards(self._tape.guards.values())

    @cached_property
    def memory_program(self) -> Program:
        """The program for the fields of `Memory`, in order."""
        return Program(list(self.memory_formulas.values()))

    @cached_property
    def memory_formulas(self) -> dict[str, Any]:
        """The formula of each field of `Memory`."""
        with uncollected():
            memory = self._inference.memory()
        return {name: getattr(memory, name) for name in names_of(Memory)}

    @cached_property
    def activity(self) -> ActivityFormulas | None:
        """The activity of memory and matrix units in the steps; None if the device states no peak for a format."""
        return activity_formulas(self._inference, self._tape, *self._graphs)

    @cached_property
    def causes(self) -> Causes:
        """The causes of the time to the first token and of a decode step after `context` tokens.

        Raises NotRecordable if a schedule is not a formula of sums and maxima.
        """
        prompt, step = self._graphs
        from graphsim.compile.causes import causes_of

        return causes_of(self._inference, self.first_token, prompt, self.step, step)

    @cached_property
    def causes_program(self) -> Program:
        """The program for the causes, in order."""
        return Program(list(self.causes.values()))


class BoundFormulas(Evaluated):
    """Formulas at known values of some variables, such as the rates of one device. of: the formulas of all values."""

    def __init__(self, of: Formulas, known: Inputs) -> None:
        self.of, self._known = of, known
        self.fixed, self.growing = of.fixed.bound(known), [growing.bound(known) for growing in of.growing]

    @property
    def guards(self) -> Guards:
        """As of the formulas of all values."""
        return self.of.guards

    @property
    def noted(self) -> Guards:
        """As of the formulas of all values."""
        return self.of.noted

    @cached_property
    def memory_program(self) -> Program:
        """The program for the fields of `Memory`, in order."""
        return self.of.memory_program.bound(self._known)

    @cached_property
    def activity(self) -> ActivityFormulas | None:
        """The activity of memory and matrix units in the steps; None if the device states no peak for a format."""
        return None if self.of.activity is None else self.of.activity.bound(self._known)

    @property
    def causes(self) -> Causes:
        """The causes, as in the formulas of all values."""
        return self.of.causes

    @cached_property
    def causes_program(self) -> Program:
        """The program for the causes, in order."""
        return self.of.causes_program.bound(self._known)


def _by_context(step: Any) -> tuple[Any, dict[frozenset[str], Any]]:
    """A step's time in parts: what is level in the context, and by the variables that it depends on, what grows."""
    level: Any = 0.0
    growing: dict[frozenset[str], Any] = {}
    for term in _terms(step):
        if isinstance(term, Expr) and CONTEXT in term.free:
            growing[term.free] = growing.get(term.free, 0.0) + term
        else:
            level = level + term
    return level, growing


def _terms(value: Any) -> list[Any]:
    if not isinstance(value, Expr) or value.linear is None:
        return [value]
    constant, terms = value.linear
    return [constant, *(value.tape.linear(0.0, {serial: coefficient}) for serial, coefficient in terms)]


def formulas_of(inference: Inference) -> Evaluated | None:
    """The recorded formulas of an inference's structure; None where its passes need actual numbers.

    Raises GraphError for a user's own pass that yields an invalid graph: the graphs of a structure are checked once,
    those of actual numbers every time.
    """
    found = _devices.get(structure_of(inference), lambda: _of_device(inference)) if recordable(inference) else None
    if found is None:
        inference.check_passes()
    return found


_devices: Memo[Evaluated | None] = Memo(most=512)
_structures: Memo[Formulas | None] = Memo(most=256)


def _of_device(inference: Inference) -> Evaluated | None:
    """The formulas of a structure, on the inference's device if its rates are single values."""
    graphs = lowered_of(inference)
    if graphs is None:
        return None
    if not has_variable_rates(inference):
        return _compile(inference, rates=False)
    kind = [graphs, *kind_of_prices(inference, graphs.families)]
    found = _structures.get(kind, lambda: _compile(inference, rates=True))
    device = inference.hardware
    return found if found is None or has_many_rates(device) else BoundFormulas(found, rates_of(device))


def _compile(inference: Inference, *, rates: bool) -> Formulas | None:
    try:
        with uncollected():
            return Formulas(inference, rates=rates)
    except NotRecordable:
        return None

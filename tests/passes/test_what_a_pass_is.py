"""A user's own pass is its class and its fields: what else it holds, or could change, is refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import Rule, Step, Value
from graphsim.ops import Activation, Add, Op


class Plain(gs.Pass):
    def rule(self, graph: nx.DiGraph) -> Rule:
        return lambda name, op, inputs: [(name, op, inputs)]


@dataclass(frozen=True)
class Keep(Plain):
    given: Any = None


class HidesAnArgument(Keep):
    def __init__(self, hidden: int) -> None:
        object.__setattr__(self, "hidden", hidden)


class HidesInASlot(Keep):
    __slots__ = ("hidden",)

    def __init__(self, hidden: int) -> None:
        object.__setattr__(self, "hidden", hidden)


@dataclass
class Thawed(Plain):
    times: int = 1


@dataclass(frozen=True)
class Unset(Plain):
    times: int = field(init=False)


@dataclass(frozen=True)
class WorksOut(Plain):
    """Lets as many activations follow an addition as it works out from its field."""

    times: int = 1

    @cached_property
    def squared(self) -> int:
        return self.times**2

    def rule(self, graph: nx.DiGraph) -> Rule:
        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield name, op, inputs
            for i in range(self.squared if isinstance(op, Add) else 0):
                yield f"{name}.{i}", Activation(elems=op.out_elems), [Value(f"{name}.{i - 1}" if i else name)]

        return rule


BAD: dict[str, tuple[Any, str]] = {
    "an attribute that is no field": ([HidesAnArgument(3)], "pass HidesAnArgument is not allowed; expected a frozen"),
    "a slot that is no field": ([HidesInASlot(3)], "pass HidesInASlot is not allowed; expected a frozen dataclass"),
    "no dataclass": ([Plain()], "pass Plain is not allowed; expected a frozen dataclass whose fields"),
    "not frozen": ([Thawed()], "pass Thawed is not allowed; expected a frozen dataclass"),
    "a list": ([Keep([1])], r"pass Keep: given = \[1\] is mutable; expected an immutable value, such as a number"),
    "a set": ([Keep({1})], r"pass Keep: given = \{1\} is mutable"),
    "a mapping": ([Keep({"a": 1})], "pass Keep: given = .* is mutable"),
    "an array": ([Keep(np.ones(2))], "pass Keep: given = array.* is mutable"),
    "a list in a tuple": ([Keep((1, [2]))], "pass Keep: given = .* is mutable"),
    "a field without a value": ([Unset()], "pass Unset has no value for its field 'times'"),
    "a class": ([Keep], r"passes holds the class Keep; give an instance of it, Keep\(…\)"),
    "no pass": ([3], "passes holds 3, which is not a pass"),
    "nothing": (None, "passes = None is not allowed; give a list of passes"),
    "one pass": (Keep(), r"passes = Keep\(given=None\) is not allowed; give a list of passes"),
    "one class": (Keep, "passes = the class Keep is not allowed; give a list of passes"),
    "a text": ("Keep", "passes = 'Keep' is not allowed; give a list of passes"),
}  # fmt: skip
VERBS: dict[str, Callable[[Any], Any]] = {
    "simulate": lambda passes: gs.simulate("gpt-2", "l4", passes=passes, engine="reference"),
    "sweep": lambda passes: gs.sweep("gpt-2", "l4", passes=passes, engine="reference"),
    "compile_step": lambda passes: gs.compile_step("gpt-2", "l4", passes=passes, engine="reference"),
    "build_graph": lambda passes: gs.build_graph("gpt-2", passes=passes),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", BAD)
def test_what_its_fields_do_not_say_is_refused(name: str, verb: str) -> None:
    passes, message = BAD[name]
    VERBS[verb](())  # kept, and not to be found again by what is no list
    with pytest.raises(gs.ConfigError, match=message):
        VERBS[verb](passes)


def test_passes_with_other_fields_give_other_numbers_and_may_keep_what_they_work_out() -> None:
    one = WorksOut(2)
    found = [
        gs.simulate("gpt-2", "l4", passes=[each], engine="reference").tpot_s
        for each in (WorksOut(1), one, WorksOut(3), one)
    ]
    assert found[0] < found[1] < found[2] and found[1] == found[3]
    assert vars(one) == {"times": 2, "squared": 4}

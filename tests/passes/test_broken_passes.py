"""What a user's own pass yields is looked at: a broken one is named, with the node, ahead of any number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.compile import formulas
from graphsim.deployment.inference import Inference
from graphsim.graph import Rule, Step, Value, add
from graphsim.ops import Activation, Add, Gemm, Input, Op

BATCHES = [8, 64]


@dataclass(frozen=True)
class By(gs.Pass):
    """The pass of a rule."""

    function: Callable[..., Any]

    def rule(self, graph: nx.DiGraph) -> Rule:
        return self.function


@dataclass(frozen=True)
class WithoutRule(gs.Pass):
    def rule(self, graph: nx.DiGraph) -> Rule:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class WithoutGraph(By):
    def __call__(self, graph: nx.DiGraph) -> nx.DiGraph:
        return None


def resized(op: Op, times: float) -> Op:
    return replace(op, elems=op.elems * times) if isinstance(op, Add) else op  # type: ignore[return-value]


def beside(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
    yield name, op, inputs
    if isinstance(op, Gemm):
        yield f"{name}.beside", Activation(elems=op.out_elems), [Value(name)]
        yield Value(name)


def ghost(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
    yield name, op, inputs
    yield Value("ghost")


def wider(op: Op) -> Op:
    return replace(op, n=op.n * 2.0) if isinstance(op, Gemm) else op


BROKEN: dict[str, tuple[Callable[[str, Op, list[Value]], Any], str]] = {
    "one name for all": (lambda n, o, i: [("same", o, i)], "yields 'same' for node 'wpe', a name that it yielded bef"),
    "a name alone": (lambda n, o, i: [n], "yields 'wte' for node 'wte'; expected steps, each a"),
    "a step that is not in a list": (lambda n, o, i: (n, o, i), "yields 'wte' for node 'wte'; expected steps"),
    "nothing returned": (lambda n, o, i: None, "yields None for node 'wte'; expected steps"),
    "no op": (lambda n, o, i: [(n, "op", i)], "yields .* for node 'wte'; expected steps"),
    "inputs in a text": (lambda n, o, i: [(n, o, "wte")], "yields .* for node 'wte'; expected steps"),
    "an input of itself": (lambda n, o, i: [(n, o, [*i, n])], "'wte' takes input from 'wte', which was not added"),
    "an unknown input": (lambda n, o, i: [(n, o, [Value("x")])], "'wte' takes input from 'x', which was not added"),
    "an input that is no value": (lambda n, o, i: [(n, o, [[3]])], r"'wte' takes input from '\[3\]', which was not"),
    "an unknown part": (lambda n, o, i: [(n, o, [Value(v.node, ("x",)) for v in i])], "takes part 'x'"),
    "a stand-in that is not there": (ghost, "takes input from 'ghost', which was not added"),
    "nothing yielded": (lambda n, o, i: [], "takes input from 'wte', for which pass By yielded nothing"),
    "less than nothing": (lambda n, o, i: [(n, resized(o, -1.0), i)], "has elems = -.*; allowed: finite numbers"),
    "not a number": (lambda n, o, i: [(n, resized(o, np.nan), i)], "has elems = nan; allowed: finite numbers from 0"),
    "a node that nobody reads": (beside, "'lm_head.beside' is unused: no node takes its result"),
    "dropped inputs": (lambda n, o, i: [(n, o, i[:1])], "expects .* elements, its inputs wte bring"),
    "products that do not fit": (lambda n, o, i: [(n, wider(o), i)], "expects .* elements, its inputs .* bring"),
}  # fmt: skip
VERBS: dict[str, Callable[[gs.Pass], Any]] = {
    "simulate": lambda one: gs.simulate("gpt-2", "l4", batch=8, passes=[one], engine="reference"),
    "simulate arrays": lambda one: gs.simulate(
        "gpt-2", "l4", batch=np.array(BATCHES), passes=[one], engine="reference"
    ),
    "compile_step": lambda one: gs.compile_step("gpt-2", "l4", passes=[one], engine="reference"),
    "build_graph": lambda one: gs.build_graph("gpt-2", "decode", passes=[one]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_told_with_its_pass(name: str, verb: str) -> None:
    function, message = BROKEN[name]
    with pytest.raises(gs.GraphError, match=message) as caught:
        VERBS[verb](By(function))
    assert "pass By" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (WithoutRule(), "pass WithoutRule has None for a rule; expected a function of name, op and inputs"),
        (WithoutGraph(beside), "pass WithoutGraph yielded None"),
    ],
)
def test_a_pass_without_a_rule_or_a_graph_is_told(one: gs.Pass, message: str) -> None:
    with pytest.raises(gs.GraphError, match=message):
        VERBS["simulate"](one)


def test_a_function_that_rewrites_is_told_by_its_name() -> None:
    def twice(name: str, op: Op, inputs: list[Value]) -> Iterable[Step]:
        return [(name, op, inputs), (name, Activation(elems=8.0), [Value(name)])]

    graph = nx.DiGraph()
    add(graph, "x", Input(elems=8.0))
    with pytest.raises(gs.GraphError, match="rule twice yields 'x' for node 'x', a name that it yielded before"):
        gs.rewrite(graph, twice)


def test_the_graphs_of_a_structure_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Inference] = []
    check = Inference.check_passes

    def counted(inference: Inference) -> None:
        looked.append(inference)
        check(inference)

    monkeypatch.setattr(formulas.Inference, "check_passes", counted)
    one = By(lambda name, op, inputs: [(name, op, inputs)])
    for batch in (1, 2, 3):
        gs.simulate("gpt-2", "l4", batch=batch, passes=[one], engine="reference")
    assert len(looked) == 1


def slower_when_large(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
    yield name, op, inputs
    if isinstance(op, Add) and op.elems > 16.0 * 768.0:
        yield f"{name}.again", Activation(elems=op.elems), [Value(name)]


BRANCHES = By(slower_when_large)


def test_a_sweep_goes_scenario_by_scenario_through_a_pass_that_branches() -> None:
    each = [gs.simulate("gpt-2", "l4", batch=batch, passes=[BRANCHES], engine="reference") for batch in BATCHES]
    plain = [gs.simulate("gpt-2", "l4", batch=batch, engine="reference").tpot_s for batch in BATCHES]
    assert each[0].tpot_s == pytest.approx(plain[0]) and each[1].tpot_s > 1.001 * plain[1]
    table = gs.sweep("gpt-2", "l4", batch=BATCHES, passes=[BRANCHES], engine="reference")
    assert list(table.tpot_s) == pytest.approx([one.tpot_s for one in each], rel=1e-9)
    assert list(table.memory_bytes) == pytest.approx([one.memory.total_bytes for one in each])
    assert table.fits.all() and list(table.reason) == ["", ""]


@pytest.mark.parametrize("verb", ["simulate", "build_graph"])
@pytest.mark.parametrize("asks", [slower_when_large, lambda n, o, i: [(n, o, i)] if round(o.out_elems) else []])
def test_arrays_and_a_pass_that_needs_numbers_are_told_with_its_line(asks: Any, verb: str) -> None:
    ask: Callable[..., Any] = {"simulate": gs.simulate, "build_graph": gs.build_graph}[verb]
    more = {"hardware": "l4"} if verb == "simulate" else {}
    message = r"pass By needs single numbers; found arrays over scenarios; .* \(test_broken_passes\.py:\d+: "
    with pytest.raises(gs.ConfigError, match=message):
        ask("gpt-2", batch=np.array(BATCHES), passes=[By(asks)], **more)


@pytest.mark.parametrize(
    "asks", [lambda x: f"{x:.1f}", lambda x: x.is_integer(), lambda x: isinstance(x, int) or x.hex()]
)
def test_a_rule_for_numbers_alone_is_not_recorded_and_gives_the_same(asks: Callable[[Any], Any]) -> None:
    one = By(lambda name, op, inputs: [(name, op, inputs)] if asks(op.out_elems) is not None else [])
    assert VERBS["simulate"](one).tpot_s == pytest.approx(
        gs.simulate("gpt-2", "l4", batch=8, engine="reference").tpot_s
    )
    with pytest.raises(
        gs.ConfigError, match=r"compile_step cannot record .*: test_broken_passes\.py:\d+: .*; use simu"
    ):
        VERBS["compile_step"](one)


def test_a_mistake_in_a_rule_stays_pythons_own_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        VERBS["simulate"](By(lambda name, op, inputs: [(name, op.nowhere, inputs)]))

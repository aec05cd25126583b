"""A cost function that a user writes: what it gives is checked, and what it rests on is watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.formulas import formulas_of
from graphsim.cost.base import Cost
from graphsim.cost.choose import choose_cost
from graphsim.cost.roofline import roofline
from graphsim.errors import ConfigError
from graphsim.hardware import load_hardware
from graphsim.ops import Gemm

FACTOR = 1.0


def scaled(op: Any, hardware: Any, factor: float) -> Cost:
    cost = roofline(op, hardware)
    return replace(cost, busy_s=cost.busy_s * factor)


def by_global(op: Any, hardware: Any) -> Cost:
    return scaled(op, hardware, FACTOR)


class Factor:
    """A cost model with a number that may be changed."""

    def __init__(self, factor: Any = 1.0) -> None:
        self.factor = factor

    def __call__(self, op: Any, hardware: Any) -> Cost:
        return scaled(op, hardware, np.max(self.factor))

    def price(self, op: Any, hardware: Any) -> Cost:
        return self(op, hardware)


class Slotted:
    __slots__ = ("factor",)

    def __init__(self) -> None:
        self.factor: Any = 1.0

    def __call__(self, op: Any, hardware: Any) -> Cost:
        return scaled(op, hardware, self.factor)


@dataclass(frozen=True)
class Frozen:
    factor: float

    def __call__(self, op: Any, hardware: Any) -> Cost:
        return scaled(op, hardware, self.factor)


class Holder:
    """Something that nobody can take a snapshot of."""

    factor = 1.0

    def __float__(self) -> float:
        return self.factor


class Held(Factor):
    def __call__(self, op: Any, hardware: Any) -> Cost:
        return scaled(op, hardware, float(self.factor))


def tpot_s(cost: Any) -> float:
    return float(gs.simulate("gpt-2", "l4", 8, 64, 8, cost=cost, engine="reference").tpot_s)


ONCE, FOUR_TIMES = tpot_s(Frozen(1.0)), tpot_s(Frozen(4.0))


def given(price: Any) -> Callable[..., Any]:
    def c7(op: Any, hardware: Any) -> Any:
        return price(roofline(op, hardware)) if isinstance(op, Gemm) and op.role == "c_attn" else roofline(op, hardware)

    return c7


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (lambda cost: 3.0, "gave 3.0 for Gemm 'c_attn'; expected a Cost"),
        (lambda cost: None, "gave None for Gemm 'c_attn'; expected a Cost"),
        (lambda cost: Cost(busy_s=-1.0), "gave busy_s = -1.0 for Gemm 'c_attn'; expected seconds from 0"),
        (lambda cost: Cost(busy_s=float("nan")), "gave busy_s = nan for Gemm 'c_attn'; expected seconds from 0"),
        (lambda cost: Cost(busy_s=1.0, launch_s=np.inf), "gave launch_s = inf for Gemm 'c_attn'"),
        (lambda cost: Cost(busy_s="long"), "gave busy_s = 'long' for Gemm 'c_attn'"),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_price_is_refused_with_function_and_operation(price: Any, said: str) -> None:
    cost = given(price)
    graph = gs.build_graph("gpt-2", "decode")
    for ask in (
        lambda: tpot_s(cost),
        lambda: gs.simulate("gpt-2", "l4", np.array([1.0, 2.0]), cost=cost, engine="reference"),
        lambda: gs.annotate(graph, "l4", cost),
        lambda: gs.compile_step("gpt-2", "l4", cost=cost, engine="reference")(decode_batch=2.0, context=8.0),
    ):
        with pytest.raises(ConfigError) as error:
            ask()
        assert str(error.value).startswith("cost function 'c7' gave ") and said in str(error.value)


def test_a_formula_that_falls_below_zero_later_is_refused() -> None:
    def shorter(op: Any, hardware: Any) -> Cost:
        cost = roofline(op, hardware)
        return replace(cost, busy_s=cost.busy_s + (100.5 - op.m) if isinstance(op, Gemm) else cost.busy_s)

    step = gs.compile_step("gpt-2", "l4", cost=shorter, engine="reference")
    assert step(decode_batch=2.0, context=8.0) > 0.0
    with pytest.raises(ConfigError, match=r"cost function 'shorter' gave (latency|busy)_s = -\d+\.\d+ for Gemm"):
        step(decode_batch=200.0, context=8.0)


def test_the_librarys_own_cost_models_are_not_checked() -> None:
    device = load_hardware("l4")
    for cost in ("roofline", "calibrated", roofline):
        price = choose_cost(cost, device)[0]
        assert choose_cost(price, device)[0] is price


@pytest.mark.parametrize("cost", [Factor(), Slotted()])
@pytest.mark.parametrize("as_method", [False, True])
def test_a_changed_field_of_an_object_counts(cost: Any, as_method: bool) -> None:
    asked = partial(cost.__call__) if as_method else cost
    cost.factor = 1.0
    assert tpot_s(asked) == ONCE
    cost.factor = 4.0
    assert tpot_s(asked) == FOUR_TIMES


def test_a_changed_entry_of_a_list_or_an_array_counts() -> None:
    for factor in ([1.0], np.array([1.0])):
        cost = Factor(factor)
        assert tpot_s(cost) == ONCE
        factor[0] = 4.0
        assert tpot_s(cost) == FOUR_TIMES


def test_what_nobody_can_take_a_snapshot_of_is_recorded_again() -> None:
    holder = Holder()
    cost = Held(holder)
    assert tpot_s(cost) == ONCE
    holder.factor = 4.0
    assert tpot_s(cost) == FOUR_TIMES


def test_a_list_that_holds_itself_is_recorded_again() -> None:
    cost, endless = Factor(), [1.0]
    cost.endless = endless  # type: ignore[attr-defined]
    endless.append(endless)  # type: ignore[arg-type]
    assert tpot_s(cost) == ONCE
    cost.factor = 4.0
    assert tpot_s(cost) == FOUR_TIMES


def test_a_changed_global_or_closure_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = 1.0

    def by_closure(op: Any, hardware: Any) -> Cost:
        return scaled(op, hardware, factor)

    assert tpot_s(by_global) == ONCE
    assert tpot_s(by_closure) == ONCE
    factor = 4.0
    monkeypatch.setattr("tests.cost.test_users_costs.FACTOR", 4.0)
    assert tpot_s(by_global) == FOUR_TIMES
    assert tpot_s(by_closure) == FOUR_TIMES


@pytest.mark.parametrize("cost", [by_global, Frozen(1.0), Factor(), Factor().price, partial(scaled, factor=2.0)])
def test_what_stays_the_same_is_recorded_once(cost: Any) -> None:
    def recorded() -> Any:
        return formulas_of(gs.simulate("gpt-2", "l4", 8, 64, 8, cost=cost, engine="reference").inference)

    assert recorded() is recorded()

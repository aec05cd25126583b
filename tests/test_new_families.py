"""The exercise of a stranger: a cost family of one's own, with a surface coordinate that no family has.

It is recorded and as fast as what it replaces, or the line that keeps it from that is named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile import lowered
from graphsim.compile.reasons import why_not_recorded
from graphsim.cost.blocks import BLOCKS
from graphsim.cost.families.registry import FAMILIES, Family
from graphsim.cost.surfaces.surface import Surface
from graphsim.cost.surfaces.tables import Term
from graphsim.hardware import Hardware
from graphsim.ops import Norm, Op
from graphsim.symbolic.memo import Memo
from graphsim.units import Num
from tests.test_recordability import calls_of_new_prompts, inference

NAME = "row_norms"
SURFACE = Surface(
    terms=(
        Term(axes=("fill",), knots=(np.array([-8.0, 0.0, 4.0]),), values=np.array([0.4, 0.1, 0.0])),
        Term(
            axes=("fill", "row bytes"), knots=(np.array([-8.0, 2.0]), np.array([8.0, 12.0, 16.0])),
            values=np.array([[0.2, 0.1, 0.0], [0.0, -0.1, 0.1]]),
        ),
    )
)  # fmt: skip
"""Over the rows on each core, of which no surface of the library knows, and the bytes of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowShape:
    """`rows` rows of `row_bytes` each, read and written."""

    family: ClassVar[str] = NAME

    rows: Num
    row_bytes: float


def latency_s(parameters: Any, hardware: Hardware, shape: RowShape) -> Num:
    c = parameters.get("device", {}).get("constants", {"launch_clocks": 4000.0, "dram": 1.2})
    rows = np.maximum(shape.rows, 1.0)
    moved_s = c["dram"] * 2.0 * rows * shape.row_bytes / hardware.memory_bytes_per_s
    place = {"fill": np.log2(np.ceil(rows / hardware.cores)), "row bytes": np.log2(shape.row_bytes)}
    time = (moved_s + c["launch_clocks"] / hardware.clock_hz) * np.exp(SURFACE(place))
    return np.where(np.greater(shape.rows, 0.0), time, 0.0)


def branching_s(parameters: Any, hardware: Hardware, shape: RowShape) -> Num:
    if shape.rows < 1.0:
        return 0.0
    return latency_s(parameters, hardware, shape)


def measured_s(op: Op, hardware: Hardware, parameters: Any, kernel_s: Callable[[Any], Num]) -> Num:
    assert isinstance(op, Norm)
    return kernel_s(RowShape(rows=op.rows, row_bytes=float(op.width) * op.activations.bytes))


def register(monkeypatch: pytest.MonkeyPatch, price: Callable[..., Num]) -> None:
    """A module in `cost/families`, one in `cost/blocks`, their lines in the registries, and whose family it is."""
    module: Any = ModuleType(f"graphsim.cost.families.{NAME}")
    module.latency_s, module.LEVELS, module.SURFACES, module.needed = price, (("device",),), (), lambda _: ()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(FAMILIES, NAME, Family(name=NAME, numbers=("rows",), groups=(), layout=("rows",), ops=(NAME,)))
    block: Any = ModuleType(f"graphsim.cost.blocks.{NAME}")
    block.measured_s = measured_s
    monkeypatch.setitem(sys.modules, block.__name__, block)
    monkeypatch.setitem(BLOCKS, NAME, ())
    monkeypatch.setattr(Norm, "family", NAME)
    monkeypatch.setattr(lowered, "_lowered", Memo(most=256))  # graphs whose operations were of the other family


def asked() -> Any:
    return inference("calibrated", replace(gs.load_hardware("a100-sxm-80gb")), {})


def test_a_new_family_with_a_new_coordinate_is_recorded_and_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(100, 10**6, 7))
    before, usual_s = calls_of_new_prompts(monkeypatch, sizes), asked().ttft_s()
    register(monkeypatch, latency_s)
    new = asked()
    assert why_not_recorded(new) == [] and new.ttft_s() != usual_s
    assert calls_of_new_prompts(monkeypatch, sizes) < 1.5 * before
    found = gs.simulate(new.deployment, batch=5, input_tokens=300, output_tokens=40)
    assert found.ttft_s == pytest.approx(new.ttft_s(), rel=1e-12)
    assert found.latency_s == pytest.approx(new.ttft_s() + new.generation_s(), rel=1e-12)


def test_a_line_of_a_new_family_that_asks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, branching_s)
    line = branching_s.__code__.co_firstlineno + 1
    assert why_not_recorded(asked()) == [f"test_new_families.py:{line}: a branch depends on a symbol"]

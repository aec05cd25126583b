"""A file in graphsim/ops is all that a new operation needs; an error sentence names what it lacks.

Each operation's own test states its formulas; here stands what holds for all of them.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from graphsim.cost.base import BOUNDS
from graphsim.cost.calibrated import Prices
from graphsim.cost.choose import choose_cost
from graphsim.errors import GraphError
from graphsim.hardware import load_hardware
from graphsim.ops import Op, OpType, Together, Work, op_classes
from graphsim.ops.kinds import Kind, kind_of
from tests.operations import CLASSES, KINDS, OPERATIONS, dims_of, example, made

DEVICE = load_hardware("h100-sxm")
SIZES = {"fused_tokens": 1.0}
"""Dimensions that have to be small for an operation to have work."""

NEW = '''
from dataclasses import dataclass

from graphsim.ops.elementwise import Elementwise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dropout(Elementwise):
    """Sets elements to zero at random."""
'''


def how_priced(name: str) -> str:
    """What the calibrated model asks for the operation's time: kernels that were measured, or the roofline."""
    asked: list[str] = []

    def kernel_s(shape: object) -> float:
        asked.append(type(shape).__name__.removesuffix("Shape").lower())
        return 1.0

    prices, _ = choose_cost(None, DEVICE)
    assert isinstance(prices, Prices)
    if OPERATIONS[name].family == "moe":
        return "measured expert block"
    prices.latency_s(example(OPERATIONS[name], 8.0), kernel_s)
    return f"measured {asked[0]}" if asked else "stretched roofline"


def sized(name: str) -> Op:
    """The operation with something to do; where it communicates, over four devices."""
    kind = OPERATIONS[name]
    return example(kind, 4.0) if kind not in KINDS else made(kind, {dim: SIZES.get(dim, 4.0) for dim in dims_of(kind)})


def asks(op: Op) -> bool:
    """Whether the operation demands anything of the machine."""
    return any(float(getattr(op.work(), f.name)) > 0 for f in fields(Work))


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name} by {how_priced(name)}") for name in OPERATIONS])
def test_work_has_a_price_in_both_cost_models(name: str) -> None:
    op = sized(name)
    for price in ("roofline", None):
        cost, _ = choose_cost(price, DEVICE)
        found = cost(op, DEVICE)
        assert np.isfinite(found.latency_s) and found.bound in BOUNDS
        covered = price is None and op.family == "moe"  # its time is part of the measured kernels of the products
        assert found.latency_s > 0 or covered or not asks(op), (
            f"{name} does work and costs nothing by {price or 'calibration'}"
        )


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_does_work_says_its_type_and_has_a_kind_that_pictures_show(name: str) -> None:
    op = sized(name)
    if asks(op) and not isinstance(op, Together):
        assert op.op_type is not OpType.INPUT, f"{name} does work: state its op_type"
        assert kind_of(op) is not Kind.OTHER, f"{name}: ops/kinds.py knows no kind for op_type {op.op_type.name}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_cut_or_says_why_not(name: str) -> None:
    op = sized(name)
    assert type(op).cut is not Op.cut, (
        f"{name}: define cut(), or let it raise a GraphError that says why it is not sharded"
    )
    try:
        share = op.cut(2.0)
    except GraphError as error:
        assert name in str(error) and "is not sharded" in str(error)
        return
    assert isinstance(share, type(op))
    for f in fields(Work):
        assert float(getattr(share.work(), f.name)) <= float(getattr(op.work(), f.name)), f"{name}: more {f.name}"


@pytest.mark.parametrize("name", CLASSES)
def test_an_operation_says_what_it_does_and_what_it_yields(name: str) -> None:
    kind = CLASSES[name]
    if any(issubclass(other, kind) and other is not kind for other in CLASSES.values()):
        return  # a base class may leave both to those that derive from it
    assert name in OPERATIONS, f"{name}: define out_elems, the size of what it yields"
    assert asks(sized(name)) or not kind.launched, f"{name}: define work(), or state `launched = False`"


@pytest.mark.parametrize("name", CLASSES)
def test_operations_are_frozen_slotted_and_compared_by_identity(name: str) -> None:
    kind = CLASSES[name]
    params = kind.__dataclass_params__  # type: ignore[attr-defined]
    assert params.frozen and not params.eq and "__slots__" in vars(kind), (
        f"{name}: @dataclass(frozen=, slots=, eq=False)"
    )
    assert all(f.kw_only for f in fields(kind)), f"{name}: kw_only=True"


def test_a_file_that_nothing_imports_is_found(tmp_path: Path) -> None:
    (tmp_path / "dropout.py").write_text(NEW)
    code = (
        "import sys, graphsim.ops as ops; ops.__path__.append(sys.argv[1]);"
        "kind = ops.op_classes()['Dropout']; print(kind.__module__, '__slots__' in vars(kind))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["graphsim.ops.dropout", "True"], found.stderr


def test_two_files_with_a_class_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    for name in ("dropout", "drop_path"):
        (tmp_path / f"{name}.py").write_text(NEW)
    code = "import sys, graphsim.ops as ops; ops.__path__.append(sys.argv[1]); ops.op_classes()"
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    said = "two classes of operations are named 'Dropout', in graphsim.ops.drop_path and graphsim.ops.dropout"
    assert f"GraphError: {said}" in found.stderr, f"the second Dropout replaced the first: {found.stderr or 'silently'}"


def test_the_class_that_slots_leave_behind_is_not_an_operation() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True, eq=False)
    class Twice(Op):
        width: float = 1.0

    assert [kind.__name__ for kind in Op.__subclasses__()].count("Twice") == 2
    assert op_classes()["Twice"] is Twice


def test_a_users_operation_does_not_hide_the_librarys_of_the_same_name() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True, eq=False)
    class Gemm(Op):
        width: float = 1.0

    assert Gemm.__name__ == "Gemm" and op_classes()["Gemm"] is CLASSES["Gemm"]

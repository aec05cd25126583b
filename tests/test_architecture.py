"""The shape of the house: imports point down, files and functions stay small, nothing prints or asserts."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import graphsim
from tests.paths import ROOT
from tests.rooms import circles_of, imports_of, module_graph, modules_of, room_of, tree

PACKAGE = ROOT / "graphsim"
MODULES = modules_of(PACKAGE)
FILES = sorted([*MODULES.values(), PACKAGE / "__init__.py"])

ROWS = (
    "errors",
    "lazy",
    "units",
    "ranges",
    "brief",
    "symbolic",
    "files",
    "ops",
    "graph",
    "hardware",
    "cost",
    "lora",
    "models",
    "passes",
    "deployment",
    "composed",
    "compile",
    "display",
    "result",
    "speculation",
    "simulation",
    "training",
    "analysis",
    "sweeps",
    "calibration",
    "traffic",
    "serving",
    "validation",
    "export",
    "cli",
    "__main__",
)
"""Rooms from bottom to top, in the order of the plan: a room imports only those above it in this list."""

RANK = {name: number for number, name in enumerate(ROWS)}
WRITES_PROGRAMS = {"symbolic.python"}
"""The modules that may call `exec`: on text that they wrote themselves, of operators and numbers."""


def home(module: str) -> str:
    """The name under which a module appears in ROWS."""
    return module if module in RANK else room_of(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """Also those for annotations only."""
    here = home(module)
    assert here in RANK, f"give {here} a place in ROWS"
    upward = {name for name in imports_of(MODULES[module], MODULES) if RANK[home(name)] > RANK[here]}
    assert not upward, f"{module} must not import {sorted(upward)}"


@pytest.mark.parametrize("room", ROWS)
def test_every_room_of_the_list_is_there(room: str) -> None:
    assert any(home(module) == room for module in MODULES), f"ROWS lists {room}, which holds no module"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_inside_the_package_are_absolute(path: Path) -> None:
    relative = [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{path.name}, lines {relative}"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not for annotations either: what two modules know of each other is one subject, or a Protocol."""
    assert not circles_of(module_graph(MODULES))


def test_only_cost_and_what_stands_on_it_knows_ops_and_hardware() -> None:
    for module, path in MODULES.items():
        if module.startswith(("ops", "graph", "lora", "models", "passes")):
            known = {home(name) for name in imports_of(path, MODULES, types=False)}
            assert not known & {"hardware", "cost"}, module


def test_the_schedule_knows_no_op_but_what_shapes_the_graph() -> None:
    names = {
        alias.name
        for node in ast.walk(tree(MODULES["graph.schedule"]))
        if isinstance(node, ast.ImportFrom) and node.module == "graphsim.ops"
        for alias in node.names
    }
    assert names <= {"Op", "Repeat", "Input"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


@pytest.mark.parametrize("module", MODULES)
def test_the_library_neither_prints_nor_asserts_nor_evaluates_text(module: str) -> None:
    banned = {"print", "eval"} if module in WRITES_PROGRAMS else {"print", "eval", "exec"}
    for node in ast.walk(tree(MODULES[module])):
        assert not isinstance(node, ast.Assert | ast.Global), f"{module}, line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in banned, f"{module}, line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_hold_constants_only(path: Path) -> None:
    """What is assigned at module level is never filled or emptied later, and empty containers have no other use."""
    names: set[str] = set()
    for node in tree(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict | ast.List | ast.Set) and not ast.unparse(value).strip("{}[]() "):
            pytest.fail(f"{path.name}, line {node.lineno}: an empty container at module level")
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            changed = node.func.attr in ("append", "update", "add", "setdefault", "pop", "clear", "extend", "insert")
            assert not (changed and node.func.value.id in names), f"{path.name}, line {node.lineno}"
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            held = isinstance(node.value, ast.Name) and node.value.id in names
            assert not held, f"{path.name}, line {node.lineno}"


@pytest.mark.parametrize("name", graphsim.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(graphsim, name) is not None
    assert name in dir(graphsim)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        graphsim.simulat  # noqa: B018


PROMISED = """
    list_models list_hardware load_model get_configs ModelConfig load_hardware Hardware LoraConfig Parallelism OpType
    simulate Estimate PhaseEstimate compare_lora build_graph annotate critical_path total_work Work lora_parameters
    predict_kernels create_full_prefill_model create_full_decode_model estimate_end_to_end_performance
    to_dot to_trace to_html sweep best pareto sensitivity sweep_to_parquet
"""


@pytest.mark.parametrize("name", PROMISED.split())
def test_the_public_surface_is_as_promised(name: str) -> None:
    assert name in graphsim.__all__


def test_op_types_carry_the_lora_documents_numbers() -> None:
    kinds = graphsim.OpType
    assert [kinds.LORA_MERGE, kinds.GEMM_LORA_A, kinds.GEMM_LORA_B, kinds.ADD] == [18, 19, 20, 21]


def test_public_functions_say_what_they_do() -> None:
    for name in graphsim.__all__:
        assert (getattr(graphsim, name).__doc__ or "").strip(), name

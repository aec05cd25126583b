"""The shape of the house: imports point down, files and functions stay small, nothing prints or asserts."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
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


def test_every_module_has_a_place_in_the_list_and_every_place_a_module() -> None:
    rooms = {home(module) for module in MODULES}
    assert not rooms - RANK.keys(), f"give {sorted(rooms - RANK.keys())} a place in ROWS"
    assert not RANK.keys() - rooms, f"ROWS lists {sorted(RANK.keys() - rooms)}, which hold no module"


def test_imports_point_down() -> None:
    """Also those for annotations only."""
    upward = {
        module: names
        for module, path in MODULES.items()
        if (names := sorted(name for name in imports_of(path, MODULES) if RANK[home(name)] > RANK[home(module)]))
    }
    assert not upward, "; ".join(f"{module} must not import {names}" for module, names in upward.items())


def said_of(faults: Callable[[Path], Iterable[str]]) -> str:
    """What is wrong with the package's files, each fault with its file."""
    return "\n".join(f"{path.relative_to(PACKAGE)}: {fault}" for path in FILES for fault in faults(path))


def relative_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: a relative import"


def test_imports_inside_the_package_are_absolute() -> None:
    assert not said_of(relative_imports)


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


def too_large(path: Path) -> Iterator[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > 350:
        yield f"{lines} lines; allowed: 350"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
            yield f"{node.name} has 60 lines or more"


def test_files_and_functions_stay_small() -> None:
    assert not said_of(too_large)


def prints_or_asserts(module: str, path: Path) -> Iterator[str]:
    banned = {"print", "eval"} if module in WRITES_PROGRAMS else {"print", "eval", "exec"}
    for node in ast.walk(tree(path)):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if isinstance(node, ast.Assert | ast.Global) or called in banned:
            yield f"{module}, line {node.lineno}: {called or type(node).__name__.lower()}"


def test_the_library_neither_prints_nor_asserts_nor_evaluates_text() -> None:
    found = [fault for module, path in MODULES.items() for fault in prints_or_asserts(module, path)]
    assert not found, "\n".join(found)


def changed_constants(path: Path) -> Iterator[str]:
    names: set[str] = set()
    for node in tree(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict | ast.List | ast.Set) and not ast.unparse(value).strip("{}[]() "):
            yield f"line {node.lineno}: an empty container at module level"
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            changed = node.func.attr in ("append", "update", "add", "setdefault", "pop", "clear", "extend", "insert")
            if changed and node.func.value.id in names:
                yield f"line {node.lineno}: {node.func.value.id}.{node.func.attr} changes a constant"
        stored = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
        if stored and isinstance(node.value, ast.Name) and node.value.id in names:
            yield f"line {node.lineno}: an entry of {node.value.id} is changed"


def test_modules_hold_constants_only() -> None:
    """What is assigned at module level is never filled or emptied later, and empty containers have no other use."""
    assert not said_of(changed_constants)


def test_every_public_name_is_there() -> None:
    missing = [name for name in graphsim.__all__ if getattr(graphsim, name) is None or name not in dir(graphsim)]
    assert not missing


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        graphsim.simulat  # noqa: B018


PROMISED = """
    list_models list_hardware load_model get_configs ModelConfig load_hardware Hardware LoraConfig Parallelism OpType
    simulate Estimate PhaseEstimate compare_lora build_graph annotate critical_path total_work Work lora_parameters
    predict_kernels create_full_prefill_model create_full_decode_model estimate_end_to_end_performance
    to_dot to_trace to_html sweep best pareto sensitivity sweep_to_parquet
"""


def test_the_public_surface_is_as_promised() -> None:
    assert not set(PROMISED.split()) - set(graphsim.__all__)


def test_op_types_carry_the_lora_documents_numbers() -> None:
    kinds = graphsim.OpType
    assert [kinds.LORA_MERGE, kinds.GEMM_LORA_A, kinds.GEMM_LORA_B, kinds.ADD] == [18, 19, 20, 21]


def test_public_functions_say_what_they_do() -> None:
    for name in graphsim.__all__:
        assert (getattr(graphsim, name).__doc__ or "").strip(), name

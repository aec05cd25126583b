"""The shape of the house: imports point down, files and functions stay small, nothing prints or asserts."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

import graphsim

PACKAGE = Path(graphsim.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "docs" not in path.relative_to(PACKAGE).parts)
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
    if path.parent != PACKAGE or path.name != "__init__.py"
}

ROWS = (
    ("errors",),
    ("units",),
    ("symbolic",),
    ("files",),
    ("ops",),
    ("graph", "hardware"),
    ("cost", "lora"),
    ("models", "passes"),
    ("deployment",),
    ("compile",),
    ("display",),
    ("result",),
    ("simulation",),
    ("analysis", "sweeps"),
    ("calibration",),
    ("validation",),
    ("export",),
    ("cli",),
    ("__main__",),
)
"""Rooms from bottom to top: a room imports those above it in this list."""

RANK = {name: number for number, row in enumerate(ROWS) for name in row}


def home(module: str) -> str:
    """The name under which a module appears in ROWS."""
    while module not in RANK and "." in module:
        module = module.rpartition(".")[0]
    return module


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def for_types_only(path: Path) -> set[ast.AST]:
    """Everything below `if TYPE_CHECKING:`."""
    guarded = [
        node
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {inner for node in guarded for inner in ast.walk(node)}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at its top or inside a function."""
    found: set[str] = set()
    skipped = for_types_only(path)
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ImportFrom) or node in skipped:
            continue
        assert node.level == 0, f"{path.name}: imports inside the package are absolute"
        module = (node.module or "").removeprefix("graphsim").removeprefix(".")
        if (node.module or "").split(".")[0] == "graphsim":
            inner = {f"{module}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= (inner & MODULES.keys()) or ({module} & MODULES.keys())
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    here = home(module)
    assert here in RANK, f"give {module} a place in ROWS"
    upward = {name for name in imported(MODULES[module]) if RANK[home(name)] >= RANK[here]}
    row = {name for name in upward if RANK[home(name)] == RANK[here]}
    upward -= {name for name in row if name.partition(".")[0] == module.partition(".")[0]}  # no circles: see below
    assert not upward, f"{module} must not import {sorted(upward)}"


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = [(module, name) for module, path in MODULES.items() for name in imported(path)]
    circles = list(nx.simple_cycles(nx.DiGraph(edges)))
    assert not circles, circles[:3]


def test_only_cost_and_what_stands_on_it_knows_ops_and_hardware() -> None:
    for module, path in MODULES.items():
        if module.startswith(("ops", "graph", "lora", "models", "passes")):
            known = {home(name) for name in imported(path)}
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_neither_prints_nor_asserts_nor_evaluates_text(path: Path) -> None:
    """But for the one file that writes programs, of operators and numbers."""
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Assert | ast.Global), f"{path.name}, line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            banned = ("print", "eval") if path.name == "source.py" else ("print", "eval", "exec")
            assert node.func.id not in banned, f"{path.name}, line {node.lineno}"


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

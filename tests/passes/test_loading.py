"""A pass by its name: found in a module, made where it needs no arguments, and refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphsim as gs
from graphsim.passes.loading import load_pass

MODULE = """
from dataclasses import dataclass
import graphsim as gs

@dataclass(frozen=True)
class Keep(gs.Pass):
    times: int = 1
    def rule(self, graph):
        return lambda name, op, inputs: [(name, op, inputs)]

@dataclass(frozen=True)
class Needy(Keep):
    most: int = None
    def __init__(self, most): ...

class Unfinished(gs.Pass):
    pass

TWICE = Keep(times=2)
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passes_for_test.py").write_text(MODULE)
    (tmp_path / "broken_for_test.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "misspelt_for_test.py").write_text("def rule(:\n")
    (tmp_path / "raising_for_test.py").write_text("1 / 0\n")
    (tmp_path / "leaving_for_test.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_instance_and_a_class_both_load() -> None:
    assert load_pass("passes_for_test:TWICE").times == 2  # type: ignore[attr-defined]
    assert load_pass("passes_for_test:Keep").times == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("passes_for_test", "expected module:name"),
        ("", "expected module:name"),
        (":Keep", "expected module:name"),
        (3, "pass = 3 is not allowed; expected module:name"),
        ("no_such_module:Keep", "module 'no_such_module' cannot be imported: No module named 'no_such_module'"),
        ("broken_for_test:Keep", "cannot be imported: No module named 'no_such_module_anywhere'"),
        ("misspelt_for_test:Keep", "module 'misspelt_for_test' cannot be imported: SyntaxError: .*line 1"),
        ("raising_for_test:Keep", "module 'raising_for_test' cannot be imported: ZeroDivisionError: division by zero"),
        ("leaving_for_test:Keep", "module 'leaving_for_test' cannot be imported: SystemExit: 3"),
        ("..passes:Keep", "module '..passes' cannot be imported"),
        ("passes_for_test:Kept", "has no 'Kept'; did you mean 'Keep'"),
        ("passes_for_test:NUMBER", "is 3; expected a subclass of graphsim.Pass, or an instance"),
        ("passes_for_test:Needy", "cannot be made without arguments: .*; name an instance"),
        ("passes_for_test:Unfinished", "cannot be made without arguments: .*abstract.*; name an instance"),
        ("graphsim:Pass", "expected a subclass of graphsim.Pass"),
    ],
)
def test_what_cannot_be_loaded_is_told(ref: str, message: str) -> None:
    with pytest.raises(gs.ConfigError, match=message):
        load_pass(ref)

"""The family that the handbook writes out is the one in the library, to the letter."""

from __future__ import annotations

from pathlib import Path

from graphsim.models.huggingface import jetmoe
from tests.docs.pages import DOCS


def test_the_family_of_the_handbook_is_the_file_of_the_library() -> None:
    _, _, code = Path(jetmoe.__file__).read_text(encoding="utf-8").partition("from __future__ import annotations\n")
    assert f"```python\n{code.strip()}\n```\n" in (DOCS / "extending.md").read_text(encoding="utf-8")

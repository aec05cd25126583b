"""The handbook's table of recipes is what their files say. GRAPHSIM_UPDATE_DOCS=1 rewrites it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from graphsim.training import recipe as recipes
from graphsim.training.recipe import Chain, list_recipes, load_recipe
from tests.docs.pages import DOCS, ends_with_table

PAGE = DOCS / "recipes.md"
HEAD = "| recipe | field | value | source |\n|---|---|---|---|\n"
NO_FIELDS = ("title", "references", "sources")


def own(name: str) -> dict[str, Any]:
    """What the recipe's file itself states."""
    path = Path(recipes.__file__).parent / "recipes" / f"{name}.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {shown(each)}" for key, each in value.items() if key != "source")
    return str(value)


def chain_text(chain: Chain) -> str:
    """Kernels and bytes, forward and backward."""
    trained = (
        f", {chain.trained_kernels:g} and {chain.trained_bytes:g} more if trained" if chain.trained_kernels else ""
    )
    forward = f"{chain.forward_kernels:g} kernels, {chain.forward_bytes:g} B"
    return f"{chain.kind}: {forward}; back {chain.backward_kernels:g}, {chain.backward_bytes:g} B{trained}"


def rows_of(name: str) -> list[str]:
    recipe, stated = load_recipe(name), own(name)
    found = []
    for key in stated:
        if key in NO_FIELDS:
            continue
        value, source = stated[key], recipe.sources.get(key, "")
        if key == "inherits":
            text, source = f"`{value}`", recipe.title
        elif key == "chains":
            text = "<br>".join(chain_text(recipe.chain(kind)) for kind in value if kind != "source")
        else:
            text = shown(value["value"] if isinstance(value, dict) and "value" in value else value)
        found.append(f"| `{name}` | `{key}` | {text} | {source} |\n")
    return found


def table() -> str:
    return "".join(row for name in list_recipes() for row in rows_of(name))


def test_the_table_of_recipes_is_what_their_files_say() -> None:
    assert ends_with_table(PAGE, HEAD, table()), "GRAPHSIM_UPDATE_DOCS=1 renews it"


def test_every_recipe_and_every_field_of_its_file_stands_in_the_table() -> None:
    rows = table().splitlines()
    for name in list_recipes():
        for key in own(name).keys() - {*NO_FIELDS}:
            assert any(row.startswith(f"| `{name}` | `{key}` |") for row in rows), (name, key)
    assert all(row.count(" | ") == 3 for row in rows)

"""The line that every command with numbers begins with: what they are about, and how far to trust them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from graphsim.cli.printing import print_line
from graphsim.deployment.basis import Basis, bases_text, basis_of, trust_text
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment


def print_basis(bases: Iterable[Basis]) -> None:
    """One line, whatever many deployments there are."""
    print_line(bases_text(bases))


def served_basis(deployment: Deployment) -> Basis:
    """The basis of a deployment; without an engine, that of functions on times and memory."""
    return basis_of(deployment.under(DEFAULT_ENGINE))


def bases_of(frame: Any) -> list[Basis]:
    """The bases of a sweep's rows, by its columns; each once."""
    rows = frame[["model", "hardware", "engine", "precision", "cost"]].drop_duplicates().to_dict("records")
    return [
        Basis(
            model=row["model"], hardware=row["hardware"], engine=f"engine {row['engine']}",
            precision=row["precision"], trust=trust_text(row["cost"], row["hardware"]),
        )
        for row in rows
    ]  # fmt: skip


def bases_of_choices(
    model: Any, hardware: Sequence[Any], engines: Sequence[Any], precisions: Sequence[Any]
) -> list[Basis]:
    """The bases of all combinations; None among the engines or precisions means the default."""
    return [
        served_basis(Deployment(model, device, engine=engine, precision=precision))
        for device, engine, precision in product(hardware, engines, precisions)
    ]


def trained_bases(asked: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> list[Basis]:
    """Of training: all combinations of what is varied, and otherwise what is asked for."""
    from graphsim.sweeps.training_grid import STRUCTURE
    from graphsim.training.recipe import load_recipe

    choices = [varied.get(name, [asked.get(name)]) for name in ("model", "hardware", "recipe", "precision", "cost")]
    return [
        basis_of(
            Deployment(model, device, precision=precision, cost=cost),
            recipe=load_recipe(recipe or STRUCTURE["recipe"]).name,
        )
        for model, device, recipe, precision, cost in product(*choices)
    ]

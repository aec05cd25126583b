"""The first line of every command that prints numbers: what they refer to, and how reliable they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from graphsim.cli.printing import print_line
from graphsim.deployment.basis import Basis, bases_text, basis_of, trust_text
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment


def print_basis(bases: Iterable[Basis]) -> None:
    """Print one line for any number of deployments."""
    print_line(bases_text(bases))


def served_basis(deployment: Deployment) -> Basis:
    """The basis of a deployment; without an engine, with the default engine of functions on times and memory."""
    return basis_of(deployment.under(DEFAULT_ENGINE))


def bases_of(frame: Any) -> list[Basis]:
    """The bases of a sweep's rows, from its columns, without duplicates."""
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
    """The bases of all combinations; None among the engines or precisions stands for the default."""
    return [
        served_basis(Deployment(model, device, engine=engine, precision=precision))
        for device, engine, precision in product(hardware, engines, precisions)
    ]


def trained_bases(asked: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> list[Basis]:
    """The bases of training runs: all combinations of the varied arguments, with the other arguments fixed.

    asked: arguments of `train`
    varied: values of the varied arguments, by name
    """
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

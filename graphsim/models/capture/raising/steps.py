"""The programs of a block: one for both steps if they run the same operations, else two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphsim.models.capture.raising.node import Node, StepSize
from graphsim.models.capture.symbols import NoFormulaError, Symbols, formula, text

SAID = ("cached", "all_linear", "gated")
"""Flags that are set by default in model files."""

Entry = dict[str, Any]
"""A node in the form of a model file."""


def program(
    symbols: Symbols, prompt: Sequence[Node], decode: Sequence[Node] | None
) -> list[Entry] | dict[str, list[Entry]]:
    """The entries of a block.

    symbols: symbols of the recording
    prompt, decode: nodes of the two steps
    Raises NoFormulaError for a size without a formula.
    """
    if decode is None:
        return [_entry(symbols, node, None) for node in prompt]
    if len(prompt) == len(decode) and all(_alike(one, other) for one, other in zip(prompt, decode, strict=True)):
        try:
            return [_entry(symbols, one, other) for one, other in zip(prompt, decode, strict=True)]
        except NoFormulaError:
            pass
    return {
        "prompt": [_entry(symbols, node, None) for node in prompt],
        "decode": [_only_decode(symbols, node) for node in decode],
    }


def _alike(one: Node, other: Node) -> bool:
    fixed = [
        {k: v for k, v in n.fields.items() if not isinstance(v, StepSize) and k != "part_elems"} for n in (one, other)
    ]
    sizes = [{k for k, v in n.fields.items() if isinstance(v, StepSize)} for n in (one, other)]
    return (
        (one.name, one.op, one.inputs) == (other.name, other.op, other.inputs)
        and fixed[0] == fixed[1]
        and sizes[0] == sizes[1]
    )


def _entry(symbols: Symbols, node: Node, other: Node | None) -> Entry:
    sizes = {
        key: text(formula(symbols, value.value, other.fields[key].value if other is not None else None))
        for key, value in node.fields.items()
        if isinstance(value, StepSize)
    }
    return written(node, sizes)


def _only_decode(symbols: Symbols, node: Node) -> Entry:
    sizes = {
        key: text(formula(symbols, None, value.value))
        for key, value in node.fields.items()
        if isinstance(value, StepSize)
    }
    return written(node, sizes)


def written(node: Node, sizes: dict[str, Any]) -> Entry:
    """A node in the form of a model file, with its sizes as text."""
    entry: Entry = {"name": node.name, "op": node.op, "inputs": list(node.inputs)}
    for key, value in node.fields.items():
        if key == "part_elems" or (value is False and key not in SAID):
            continue
        entry[key] = sizes.get(key, value)
    return entry

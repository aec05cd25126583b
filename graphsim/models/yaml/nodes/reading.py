"""Classes and functions shared by the readers of a block's entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphsim.errors import choices_text
from graphsim.files.arithmetic import Expression, parse
from graphsim.files.reading import Fields
from graphsim.graph import Value
from graphsim.models.layers.custom import Node
from graphsim.models.yaml.names import size
from graphsim.models.yaml.overrides import Overrides
from graphsim.ops import Sharding

SPLITS = {"replicated": Sharding.REPLICATED, "column": Sharding.COLUMN, "row": Sharding.ROW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The context of a node: the layer's levels, the width of the residual stream, the known names.

    is_head: whether the block is the output head
    has_source: whether the block also reads the rows of an encoder
    """

    layer: Overrides
    hidden: int
    known: Mapping[str, float]
    is_head: bool = False
    has_source: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """The keys of every node: its name and inputs, and whether its weights are unused."""

    name: str
    inputs: tuple[Value, ...]
    idle: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """The keys as fields of a node."""
        return {"name": self.name, "inputs": self.inputs, "idle": self.idle}


Reader = Callable[[Fields, NodeEntry, Setting], Node]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of node: its reader, the allowed numbers of inputs, and whether it may hold weights (and so may be idle).

    takes: description of its inputs, for the message on a wrong number of inputs
    """

    read: Reader
    least: int = 1
    most: int = 1_000
    takes: str = ""
    weights: bool = False


def needed_size(fields: Fields, key: str, known: Mapping[str, float]) -> Expression:
    """A required size; 1 after noting that it is missing."""
    if key not in fields:
        fields.raw(key)
        fields.problems.append(f"{fields.name(key)} is missing, expected a number or arithmetic")
    return size(fields, key, known) or parse(1)


def targets(fields: Fields) -> tuple[str, ...]:
    """The node's keywords of the adapter targeting table."""
    from graphsim.lora.targets import WORDS

    words = [str(word) for word in fields.sequence("targets", most=len(WORDS))]
    for word in words:
        if word not in WORDS:
            fields.problem("targets", f"names '{word[:60]}', which is not known; {choices_text(word, WORDS)}")
    return tuple(words)

"""The graph: a networkx DiGraph whose nodes carry an `op`; insertion order is launch order.

`add` grows it, `rewrite` replays it through a rule, `unroll` spells repeats out, `validate` checks it and
`to_text` prints it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.lazy import names_from

if TYPE_CHECKING:
    from graphsim.graph.building import Value as Value
    from graphsim.graph.building import add as add
    from graphsim.graph.building import inputs_of as inputs_of
    from graphsim.graph.rewriting import Pass as Pass
    from graphsim.graph.rewriting import Rule as Rule
    from graphsim.graph.rewriting import Step as Step
    from graphsim.graph.rewriting import rewrite as rewrite
    from graphsim.graph.rewriting import unroll as unroll
    from graphsim.graph.stages import STAGES as STAGES
    from graphsim.graph.stages import Stage as Stage
    from graphsim.graph.text import to_text as to_text
    from graphsim.graph.validation import validate as validate
    from graphsim.graph.walking import edge_elems as edge_elems
    from graphsim.graph.walking import total_work as total_work
    from graphsim.graph.walking import walk as walk

__getattr__, __dir__, __all__ = names_from(
    __name__,
    {
        "building": (
            "Value",
            "add",
            "inputs_of",
        ),
        "rewriting": (
            "Pass",
            "Rule",
            "Step",
            "rewrite",
            "unroll",
        ),
        "text": ("to_text",),
        "stages": (
            "STAGES",
            "Stage",
        ),
        "validation": ("validate",),
        "walking": (
            "edge_elems",
            "total_work",
            "walk",
        ),
    },
)

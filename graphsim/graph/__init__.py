"""The graph: a networkx DiGraph whose nodes carry an `op`; insertion order is launch order.

`add` grows it, `rewrite` replays it through a rule, `unroll` spells repeats out, `validate` checks it and
`to_text` prints it.
"""

from graphsim.graph.building import Value, add, inputs_of
from graphsim.graph.rewriting import Pass, Rule, Step, rewrite, unroll
from graphsim.graph.text import to_text
from graphsim.graph.validation import STAGES, Stage, validate
from graphsim.graph.walking import edge_elems, total_work, walk

__all__ = [
    "Pass",
    "Rule",
    "STAGES",
    "Stage",
    "Step",
    "Value",
    "add",
    "edge_elems",
    "inputs_of",
    "rewrite",
    "to_text",
    "total_work",
    "unroll",
    "validate",
    "walk",
]

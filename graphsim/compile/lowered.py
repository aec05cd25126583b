"""The graphs of a deployment's steps with symbols for its numbers, once for all devices of an architecture."""

from __future__ import annotations

from typing import Any

import networkx as nx

from graphsim.compile.structure import graph_of
from graphsim.compile.symbols import CONTEXT, with_symbols
from graphsim.deployment.inference import Inference
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.memo import Memo


class Lowered:
    """The graphs of an inference's steps, not annotated, and the tape of their symbols.

    Raises NotRecordable where a pass asks for an actual number.
    """

    def __init__(self, inference: Inference, tape: Tape) -> None:
        self.tape = tape
        symbolic, context = with_symbols(inference, tape), tape.variable(CONTEXT)
        requests: Any = symbolic.requests
        self.step: nx.DiGraph = symbolic.step_graph(context)  # type: ignore[arg-type]
        self.prompt = symbolic.deployment.prefill(requests.batch, requests.input_tokens, media=requests.media)


def lowered_of(inference: Inference) -> Lowered:
    """The graphs of an inference's structure, whose tape takes the formulas of all devices that run it."""
    parts = [repr(inference.requests.media), inference.hardware.architecture, *graph_of(inference.deployment)]
    return _lowered.get(parts, lambda: Lowered(inference, Tape()))


_lowered: Memo[Lowered] = Memo(most=64)

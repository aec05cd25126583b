"""The graphs of a deployment's steps with symbols for its numbers, once for all devices of an architecture."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import networkx as nx

from graphsim.compile.structure import graph_of
from graphsim.compile.symbols import CONTEXT, on_device_of, with_symbols
from graphsim.compile.uncollected import uncollected
from graphsim.cost.blocks import families_behind
from graphsim.deployment.inference import Inference
from graphsim.deployment.scenarios import take
from graphsim.graph import walk
from graphsim.symbolic.expr import NotRecordable, Tape
from graphsim.symbolic.memo import Memo


class Lowered:
    """The graphs of an inference's steps, not annotated, and the tape of their symbols.

    Raises NotRecordable if a pass needs an actual number.
    """

    def __init__(self, inference: Inference, tape: Tape) -> None:
        self.tape = tape
        self._symbolic, context = with_symbols(inference, tape), tape.variable(CONTEXT)
        requests: Any = self._symbolic.requests
        self.step: nx.DiGraph = self._symbolic.step_graph(context)  # type: ignore[arg-type]
        self.prompt = self._symbolic.deployment.prefill(requests.batch, requests.input_tokens, media=requests.media)

    @cached_property
    def families(self) -> list[str]:
        """The cost families whose fits the prices of the operations depend on."""
        return families_behind(op for graph in (self.prompt, self.step) for _, op, _ in walk(graph))

    def on(self, inference: Inference, *, rates: bool, constants: bool) -> Inference:
        """The inference of these graphs on the device of one of the same structure; symbols as in `on_device_of`."""
        return on_device_of(inference, self._symbolic, self.tape, rates=rates, constants=constants)


def lowered_of(inference: Inference) -> Lowered | None:
    """The graphs of an inference's structure, whose tape holds the formulas of all devices that run it.

    None where a pass needs an actual number. Raises GraphError for a user's own pass that yields an invalid graph.
    """
    parts = [repr(inference.requests.media), inference.hardware.architecture, *graph_of(inference.deployment)]
    return _lowered.get(parts, lambda: _lower(inference))


_lowered: Memo[Lowered | None] = Memo(most=256)


def _lower(inference: Inference) -> Lowered | None:
    single = inference if inference.scenarios is None else take(inference, 0)
    single.check_passes()
    try:
        with uncollected():
            return Lowered(inference, Tape())
    except NotRecordable:
        return None

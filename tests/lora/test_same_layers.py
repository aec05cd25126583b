"""Law: an adapter whose names tell no layers is matched in the first layer alone, with the graph of all of them."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import inputs_of
from graphsim.lora.targets import Targets
from graphsim.models.build import build
from graphsim.models.phase import decode
from graphsim.ops import Repeat
from graphsim.ops.precision import load_precision

ALIKE: dict[str, dict[str, Any]] = {
    "words": {"target_modules": ("qkv", "up+gate")},
    "names": {"target_modules": ["q_proj", "mlp.down_proj"]},
    "all": {"target_modules": "all-linear", "exclude_modules": ["lm_head"]},
    "ranks": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 4}},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "rows": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]},
    "shared": {"target_modules": ["q_proj"], "variant": "vera"},
}
DIFFERENT: dict[str, dict[str, Any]] = {
    "layers": {"target_modules": ["q_proj"], "layers_to_transform": [1, 2]},
    "number": {"target_modules": ["v_proj", "1.self_attn.q_proj"]},
    "pattern": {"target_modules": r".*\.[0-3]\..*q_proj"},
    "ranks": {"target_modules": ["q_proj"], "rank_pattern": {r".*\.3\..*q_proj": 4}},
    "excluded": {"target_modules": ["q_proj"], "exclude_modules": ["layers.2.self_attn.q_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["layers...self_attn.q_proj"]},
}


def graph_of(**lora: Any) -> nx.DiGraph:
    model = build(gs.load_model("llama-3.2-1b"), decode(4.0, 64.0), load_precision("bf16"))
    return gs.inject(model, gs.LoraConfig(rank=8, **lora))


def told(graph: nx.DiGraph) -> list[Any]:
    """All that a graph says, bodies of repeats included."""
    return [
        (name, repr(op), inputs_of(graph, name), told(op.body) if isinstance(op, Repeat) else [])
        for name, op in graph.nodes(data="op")
    ]


@pytest.mark.parametrize("lora", ALIKE.values(), ids=ALIKE)
def test_layers_that_no_name_tells_apart_match_once(lora: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(graph_of(**lora))
    assert not Targets(gs.LoraConfig(rank=8, **lora)).tells_layers
    monkeypatch.setattr(Targets, "tells_layers", True)
    assert found == told(graph_of(**lora))


@pytest.mark.parametrize("lora", DIFFERENT.values(), ids=DIFFERENT)
def test_names_that_tell_layers_are_matched_in_each(lora: dict[str, Any]) -> None:
    assert Targets(gs.LoraConfig(rank=8, **lora)).tells_layers
    assert sum(isinstance(op, Repeat) for _, op in graph_of(**lora).nodes(data="op")) > 1

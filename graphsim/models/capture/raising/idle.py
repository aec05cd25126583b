"""Unused weights that are in memory: modules that no step calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graphsim.models.capture.adapters import all_linear
from graphsim.models.capture.raising.node import Node
from graphsim.models.capture.raising.products import is_linear
from graphsim.models.capture.recording import is_norm


def idle(
    model: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    names: Sequence[str],
    prefix: str,
    label: str = "unused",
) -> list[Node]:
    """Nodes for parameters that belong to no other node; linear layers get nodes of their own, as adapters target them.

    model: the model
    parameters: the model's parameters by name
    names: names of the unused parameters
    prefix: module path of the layer, which is removed from the nodes' modules
    label: name of the nodes
    """
    nodes: list[Node] = []
    rest, reached = 0, all_linear(model)
    for name in names:
        module, _, leaf = name.rpartition(".")
        owner = model.get_submodule(module)
        if leaf == "weight" and is_linear(owner):
            nodes.append(
                _linear(owner, module.removeprefix(prefix), f"{label}_{len(nodes)}", reached.has_module(module))
            )
        elif is_norm(owner) and leaf == "weight":
            nodes.append(_norm(owner, module.removeprefix(prefix), f"{label}_{len(nodes)}"))
        elif not (leaf == "bias" and (is_linear(owner) or is_norm(owner))):
            rest += parameters[name].numel()
    if rest:
        nodes.append(Node(name=label, op="compute", inputs=(), elems=0, fields={"idle": True, "weights": rest}))
    return nodes


def _norm(owner: Any, module: str, name: str) -> Node:
    width = int(owner.weight.numel())
    weights = sum(int(parameter.numel()) for parameter in owner.parameters())
    fields = {"width": width, "weights": weights, "module": module, "idle": True}
    return Node(name=name, op="norm", inputs=(), elems=0, fields=fields)


def _linear(owner: Any, module: str, name: str, reached: bool) -> Node:
    n, k = owner.weight.shape if isinstance(owner, torch.nn.Linear) else owner.weight.shape[::-1]
    fields = {
        "n": int(n),
        "k": int(k),
        "module": module,
        "bias": owner.bias is not None,
        "all_linear": reached,
        "idle": True,
    }
    return Node(name=name, op="gemm", inputs=(), elems=0, fields=fields)

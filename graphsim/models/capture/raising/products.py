"""Nodes of GEMMs, convolutions and embedding look-ups."""

from __future__ import annotations

from typing import Any

import sympy
import torch

from graphsim.models.capture.adapters import all_linear
from graphsim.models.capture.raising import scans
from graphsim.models.capture.raising.block import Block
from graphsim.models.capture.raising.node import Node, StepSize, count
from graphsim.models.capture.rows import Row, RowInput
from graphsim.ops.custom import NO_FORMULA

_PRODUCTS = "mm addmm bmm baddbmm matmul addbmm _grouped_mm dot mv addmv"
PRODUCTS = frozenset(_PRODUCTS.split())
_CONVOLUTIONS = "convolution _convolution conv1d conv2d conv3d cudnn_convolution"
CONVOLUTIONS = frozenset(_CONVOLUTIONS.split())


def weight_of(taken: RowInput) -> str:
    """Name of the weight if an input is one; "" for an activation."""
    kind, _, name = taken.source.partition(":")
    return name if kind == "weight" else ""


def linear(block: Block, row: Row) -> None:
    """Add `torch.nn.functional.linear`, or a product of an activation and a two-dimensional weight."""
    weights = [taken for taken in row.inputs if weight_of(taken) in block.parameters]
    matrix = next((taken for taken in weights if len(taken.shape) == 2), None)
    values = [taken for taken in row.inputs if block.flows(taken)]
    if matrix is None or len(values) != 1:
        product(block, row)
        return
    n = row.out[-1]
    k = values[0].shape[-1]
    gemm(block, row, values[0], n=n, k=k, matrix=matrix, bias=len(weights) > 1)


def gemm(block: Block, row: Row, value: RowInput, *, n: Any, k: Any, matrix: RowInput, bias: bool) -> None:
    """Add a GEMM with a weight, or with some of a weight's rows.

    value: the activation
    n, k: output and input width
    matrix: the weight, or the part of it that is used
    bias: whether a bias is added
    """
    weight = weight_of(matrix)
    is_some = count(matrix.shape) < block.parameters[weight].numel()
    held = f"{weight}@{matrix.offset}" if is_some else weight
    calls, owner = _calls(block, row, weight), weight.removesuffix(".weight")
    name = row.module if calls else owner
    is_module = calls or (owner != weight and is_linear(block.model.get_submodule(owner)))
    inputs, _ = block.take([value])
    reached = all_linear(block.model)
    fields: dict[str, Any] = {
        "n": int(n), "k": int(k), "m": StepSize(sympy.expand(count(row.out) / n)), "module": block.module_name(name),
        "bias": bias, "all_linear": reached.has_module(name) if is_module else reached.has_parameter(weight),
    }  # fmt: skip
    if not is_module:
        fields["bare"] = True
    if held in block.spent or f"{name}.weight" != weight and is_module:
        fields["shared"] = True
    label = block.unique(name.rpartition(".")[2])
    names = tuple(dict.fromkeys(weight_of(t) for t in row.inputs if weight_of(t) in block.parameters))
    block.spent.update((*names, held))
    block.add(
        Node(name=label, op="gemm", inputs=inputs, elems=count(row.out), fields=fields, weights=names), [row.name]
    )


def _calls(block: Block, row: Row, weight: str) -> bool:
    """Whether a GEMM is the call of the linear layer that holds the weight."""
    module = block.model.get_submodule(row.module) if row.module else block.model
    if not is_linear(module):
        return False
    return module.weight.shape == block.parameters[weight].shape


def is_linear(module: torch.nn.Module) -> bool:
    """Whether PEFT treats a module as a linear layer."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def product(block: Block, row: Row) -> None:
    """Add a product of two activations, or with a weight that is not a matrix, with the FLOPs that PyTorch counts."""
    weights = [name for taken in row.inputs if (name := weight_of(taken)) in block.parameters]
    values = [taken for taken in row.inputs if block.flows(taken)]
    inputs, elems = block.take(values)
    flops = row.flops if row.flops else 0
    fields: dict[str, Any] = {
        "elems": StepSize(count(row.out)), "reads": StepSize(elems), "flops": StepSize(sympy.expand(flops)),
        "weights": block.learned(weights),
    }  # fmt: skip
    node = Node(name=block.unique(row.op.strip("_")), op="compute", inputs=inputs, elems=count(row.out), fields=fields,
                weights=tuple(weights))  # fmt: skip
    block.add(node, [row.name])


def embedding(block: Block, row: Row) -> None:
    """Add an embedding look-up."""
    table = next((name for taken in row.inputs if (name := weight_of(taken)) in block.parameters), None)
    if table is None:
        other(block, row)
        return
    entries, width = block.parameters[table].shape[0], row.out[-1]
    module, _, leaf = table.rpartition(".")
    rows = sympy.expand(count(row.out) / width)
    fields: dict[str, Any] = {"entries": int(entries), "width": int(width), "tokens": StepSize(rows)}
    if table in block.spent:
        fields["shared"] = True
    block.spent.add(table)
    if leaf == "weight":
        fields["module"] = block.module_name(module)
    else:
        fields["parameter"] = block.module_name(table)
    name = block.unique((module if leaf == "weight" else table).rpartition(".")[2])
    block.add(
        Node(name=name, op="embedding", inputs=(), elems=count(row.out), fields=fields, weights=(table,)), [row.name]
    )


def convolution(block: Block, row: Row) -> None:
    """Add a convolution as a GEMM of patches and filters; a depthwise one as a memory-bound operation."""
    names = [name for taken in row.inputs if (name := weight_of(taken)) in block.parameters]
    values = [taken for taken in row.inputs if block.flows(taken)]
    if not names or len(values) != 1:
        product(block, row)
        return
    filters = block.parameters[names[0]]
    inputs, elems = block.take(values)
    results = count(row.out)
    taps = filters[0].numel()
    fields: dict[str, Any] = {
        "elems": StepSize(results), "reads": StepSize(elems), "weights": block.learned(names),
    }  # fmt: skip
    depthwise = filters.shape[1] == 1
    fields["vector_flops" if depthwise else "flops"] = StepSize(sympy.expand(2 * results * taps))
    name = block.unique(names[0].rpartition(".")[0].rpartition(".")[2])
    block.add(
        Node(name=name, op="compute", inputs=inputs, elems=results, fields=fields, weights=tuple(names)), [row.name]
    )


def other(block: Block, row: Row) -> None:
    """Add an operation without a FLOP formula as memory-bound: the bytes that it reads and writes."""
    values = [taken for taken in row.inputs if block.flows(taken)]
    names = [name for taken in row.inputs if (name := weight_of(taken)) in block.parameters]
    inputs, elems = block.take(values)
    fields: dict[str, Any] = {
        "elems": StepSize(count(row.out)), "reads": StepSize(elems), "weights": block.learned(names),
    }  # fmt: skip
    if row.flops:
        fields["flops"] = StepSize(sympy.expand(row.flops))
    else:
        fields["note"] = f"{NO_FORMULA}: {row.op}"
    name = block.unique(row.op.strip("_"))
    block.add(
        Node(name=name, op="compute", inputs=inputs, elems=count(row.out), fields=fields, weights=tuple(names)),
        [row.name],
    )


KERNELS = {"scan": scans.scan, "causal_conv": scans.convolution}
"""Conversions of graphsim's own operators, by name."""


def single(block: Block, row: Row) -> None:
    """Convert a row that is not claimed."""
    if row.kind == "kernel":
        KERNELS[row.op](block, row)
    elif row.kind == "linear":
        linear(block, row)
    elif row.kind == "embedding" or row.op == "embedding":
        embedding(block, row)
    elif row.kind == "conv" or row.op in CONVOLUTIONS:
        convolution(block, row)
    elif row.op in PRODUCTS:
        linear(block, row)
    else:
        other(block, row)

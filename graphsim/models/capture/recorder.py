"""Recording of one step of a model: the dispatched operations, in order, each with the module that called it.

The model's own Python code runs on fake tensors with symbolic sizes (`torch._subclasses.FakeTensorMode`), under a
dispatch mode that sees every aten operation and a function mode that records some calls as one row: a linear layer, a
norm or an attention is one row, however PyTorch decomposes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from graphsim.models.capture.rows import Call, Row, RowInput, Size, distinct, expression, shape_of, tensors_in


def _grouped_flops(a_shape: Any, b_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> Any:
    """FLOPs of a grouped GEMM, which multiplies each row by one matrix; PyTorch's counter has no formula for it."""
    return 2 * a_shape[0] * a_shape[-1] * out_shape[-1]


if torch.ops.aten._grouped_mm not in flop_registry:
    register_flop_formula(torch.ops.aten._grouped_mm)(_grouped_flops)


def _plain(args: Any) -> list[Any]:
    """Arguments of graphsim's own operators other than tensors; for a list of tensors, its length."""
    found: list[Any] = []
    for arg in args:
        if isinstance(arg, list | tuple) and all(isinstance(item, torch.Tensor) for item in arg):
            found.append(len(arg))
        elif arg is not None and not isinstance(arg, torch.Tensor):
            found.append([expression(item) for item in arg] if isinstance(arg, list | tuple) else expression(arg))
    return found


_VIEWS = (
    "view _unsafe_view t transpose permute expand unsqueeze squeeze slice select alias detach split "
    "split_with_sizes as_strided reshape unbind chunk narrow lift_fresh lift_fresh_copy diagonal unfold "
    "view_as_real view_as_complex real imag movedim expand_as view_as unflatten"
)
VIEWS = frozenset(_VIEWS.split())
"""Operations that move no data; their results are aliases of their inputs."""


class Recorder(TorchDispatchMode):
    """Dispatch mode that records a row per operation; `recording` enters it together with function modes and hooks.

    model: the model
    watched: paths of the modules whose calls are recorded in `calls`: the layers of stacks
    passed: results of skipped layers: stack and index of the layer, by the tensor's id
    """

    def __init__(
        self,
        model: torch.nn.Module,
        watched: frozenset[str] = frozenset(),
        passed: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.watched, self.passed = model, watched, {} if passed is None else passed
        self.rows: list[Row] = []
        self.calls: list[Call] = []
        self.stack: list[str] = [""]
        self.scopes: list[str] = []
        self.origin: dict[int, str] = {}
        self.base: dict[int, int] = {}
        self.shapes: dict[int, tuple[Size, ...]] = {}
        self.place: dict[int, int] = {}
        self.inner_flops: Size = 0
        self.quiet = 0
        self._kept: list[Any] = []  # ids stay unique as long as the tensors exist
        self._numbers = 0
        weights = list(model.named_parameters(remove_duplicate=False)) + list(
            model.named_buffers(remove_duplicate=False)
        )
        self.weights: dict[int, str] = {}
        for name, tensor in weights:
            self.weights.setdefault(id(tensor), name)

    def source_of(self, tensor: torch.Tensor) -> str:
        """Source of a tensor: name of a row, `weight:NAME`, the name of an input or a state, or `?`."""
        known = self.origin.get(id(tensor))
        if known is not None:
            return known
        if (place := self.passed.get(id(tensor))) is not None:
            return f"passed:{place[0]}.{place[1]}"
        weight = self.weights.get(id(tensor))
        return f"weight:{weight}" if weight is not None else "?"

    def taken(self, tensor: torch.Tensor) -> RowInput:
        """A tensor as the input of a row."""
        if tensor.is_sparse:
            return RowInput(self.source_of(tensor), shape_of(tensor))
        offset, place = expression(tensor.storage_offset()), self.place.get(id(tensor), 0)
        return RowInput(self.source_of(tensor), distinct(tensor), (place, offset) if place else offset)

    def name_values(self, tensors: dict[str, torch.Tensor]) -> None:
        """Set the names of tensors that enter the step."""
        for name, tensor in tensors.items():
            self._kept.append(tensor)
            self.origin[id(tensor)] = name

    def alias(self, result: Any, source: Any) -> None:
        """Make the tensors of a result aliases of another tensor."""
        for tensor in tensors_in(result):
            self._kept.append(tensor)
            self.origin[id(tensor)] = self.source_of(source)
            self.base[id(tensor)] = base = self.base.get(id(source), id(source))
            self.shapes.setdefault(base, shape_of(source))
            self.place[id(tensor)] = self.place.get(id(source), 0)

    def add(self, kind: str, op: str, taken: list[torch.Tensor], result: Any, **attributes: Any) -> Row:
        """Add a row whose results are the tensors of `result`.

        kind, op: kind and operation of the row
        taken: input tensors
        result: nested results
        attributes: attributes of the row, and its `flops`
        """
        flops = attributes.pop("flops", 0)
        results = tensors_in(result)
        row = Row(
            name=f"{self.stack[-1]}|{op}|{len(self.rows)}",
            kind=kind,
            op=op,
            module=self.stack[-1],
            scopes=tuple(self.scopes),
            inputs=tuple(self.taken(tensor) for tensor in taken),
            outputs=tuple(shape_of(tensor) for tensor in results),
            flops=flops,
            attributes=attributes,
        )
        self.rows.append(row)
        for place, tensor in enumerate(results):
            self._kept.append(tensor)
            self.origin[id(tensor)] = row.name
            self.place[id(tensor)] = place
        return row

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation on fake tensors and record it, unless an enclosing call is recorded as one row."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace == "prim":
            return result
        packet, name = func._overloadpacket, func._schema.name.split("::")[-1]
        flops: Size = 0
        if packet in flop_registry:
            flops = expression(flop_registry[packet](*args, **kwargs, out_val=result))
        if self.quiet:
            self.inner_flops = self.inner_flops + flops
            return result
        taken = tensors_in((args, kwargs))
        if (name in VIEWS or name == "_to_copy" and self.source_of(taken[0]).startswith("weight:")) and taken:
            self.alias(result, taken[0])
            return result
        if func._schema.is_mutable and taken and all(self.source_of(one).startswith("weight:") for one in taken):
            return result  # one-time preparation of weights, such as scaling RWKV's
        kind = "kernel" if func.namespace == "graphsim" else "aten"
        attributes = {"arguments": _plain(args)} if kind == "kernel" else {}
        row = self.add(kind, name, taken, result, flops=flops, **attributes)
        if func._schema.is_mutable and taken:
            base = self.base.get(id(taken[0]), id(taken[0]))
            self.origin[base] = row.name
            row.outputs = (self.shapes.get(base, row.out), *row.outputs[1:])  # the whole tensor
        return result

    def whole(self, kind: str, op: str, call: Any, taken: list[torch.Tensor], **attributes: Any) -> Any:
        """Run a call and record its operations as one row; returns the call's result."""
        if self.quiet:
            return call()
        self.quiet, outer, self.inner_flops = 1, self.inner_flops, 0
        try:
            result = call()
        finally:
            self.quiet, flops, self.inner_flops = 0, self.inner_flops, outer
        taken = [tensor for tensor in taken if isinstance(tensor, torch.Tensor)]
        if kind == "alias":
            self.alias(result, taken[0])
        else:
            self.add(kind, op, taken, result, flops=flops, **attributes)
        return result

    @contextmanager
    def scope(self, kind: str) -> Iterator[None]:
        """Context whose rows are marked as parts of one function of this kind."""
        self._numbers += 1
        self.scopes.append(f"{kind}#{self._numbers}")
        try:
            yield
        finally:
            self.scopes.pop()

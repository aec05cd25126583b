"""Loops over experts: the number of tokens of one expert depends on data, the total over all experts does not.

Where a model's own Python code asks which experts are used, which tokens an expert gets or how many, the answer is that
the first expert gets all routed rows and the others none: sizes and matrix products over all experts are then correct.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.rows import Row, RowInput

_CHOOSING = "topk argmax max sort argsort multinomial"
CHOOSING = frozenset(_CHOOSING.split())
"""Operations that choose experts."""

_MARKING = "one_hot eq __eq__ scatter scatter_ bincount histc"
MARKING = frozenset(_MARKING.split())
"""Functions that mark the chosen expert of each routed row."""

_LOCATING = "nonzero where argwhere"
LOCATING = frozenset(_LOCATING.split())
_SAME = "squeeze flatten view reshape cpu to detach long int"
SAME = frozenset(_SAME.split())
"""Functions whose result still lists the same experts."""

_COUNTING = "tolist numpy"
COUNTING = frozenset(_COUNTING.split())
_PRODUCTS = "linear mm addmm bmm baddbmm _grouped_mm attention"
PRODUCTS = frozenset(_PRODUCTS.split())


@dataclass(frozen=True, slots=True)
class _Choice:
    """A list of chosen experts.

    rows: number of routed rows
    of: the value that holds the choices; it distinguishes one list of choices from another
    """

    rows: Any
    of: RowInput


class Choices(TorchFunctionMode):
    """Function mode that answers data-dependent queries on the choice of experts and passes all other calls through."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.choices: dict[str, _Choice] = {}
        self.first: dict[RowInput, RowInput] = {}
        self.hits: dict[int, torch.Tensor] = {}
        self._rows: dict[str, Row] = {}
        self._tolist = FakeTensor.tolist

    def __enter__(self) -> Choices:
        """Also replace `FakeTensor.tolist`, which no mode intercepts."""
        FakeTensor.tolist = lambda tensor: self._listing(tensor)
        entered: Choices = super().__enter__()
        return entered

    def __exit__(self, *error: Any) -> None:
        """Restore `FakeTensor.tolist`."""
        FakeTensor.tolist = self._tolist
        super().__exit__(*error)

    def _listing(self, tensor: torch.Tensor) -> Any:
        answer = None if self.recorder.quiet else self._answer("tolist", (tensor,), {})
        return self._tolist(tensor) if answer is None else answer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, or return the answer for all experts together."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.recorder.quiet or not args or not isinstance(args[0], torch.Tensor):
            return func(*args, **kwargs)
        answer = self._answer(name, args, kwargs)
        if answer is not None:
            return answer
        result = func(*args, **kwargs)
        if name in MARKING:
            self._mark(name, args, kwargs, result)
        elif name in SAME and id(args[0]) in self.hits:
            self.hits[id(result)] = result
        return result

    def _answer(self, name: str, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        if id(tensor) in self.hits:
            return self._of_hits(name, tensor)
        if name in LOCATING and len(args) == 1:
            return self._located(name, tensor, kwargs)
        if name == "__format__" and getattr(tensor, "constant", None) is not None:
            return format(tensor.constant.item(), *args[1:])
        if name == "unique" and len(args) == 1 and not kwargs and self._is_chosen(self.recorder.source_of(tensor)):
            return self._listed(torch.tensor([0], device="cpu"))
        if name in COUNTING and tensor.dim() == 1 and isinstance(tensor.shape[0], int):
            return self._counted(name, tensor)
        if name == "__bool__":
            return self._is_hit(tensor)
        if name in ("__getitem__", "__setitem__"):
            return self._picked(name, tensor, *args[1:])
        return None

    def _picked(self, name: str, tensor: torch.Tensor, index: Any, *given: Any) -> Any:
        """Index with masks replaced by the positions of their nonzero elements."""
        found, masks = list[Any](), 0
        for one in index if isinstance(index, tuple) else (index,):
            places = self._located("where", one, {}) if _is_mask(one) else None
            found += [one] if places is None else places
            masks += places is not None
        if not masks:
            return None
        result = getattr(torch.Tensor, name)(tensor, tuple(found), *given)
        return tensor if name == "__setitem__" else result

    def _of_hits(self, name: str, tensor: torch.Tensor) -> Any:
        """One expert represents all of them."""
        if name in ("unbind", "__iter__"):
            one = torch.tensor([0] if tensor.dim() > 1 else 0, device="cpu")
            return (one,) if name == "unbind" else iter((one,))
        if name == "tolist":
            return [0] if tensor.dim() == 1 else [[0]]
        return None

    def _listed(self, tensor: torch.Tensor) -> torch.Tensor:
        self.hits[id(tensor)] = tensor  # kept alive, so that the id stays unique
        return tensor

    def _mark(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        places = [arg for arg in (*args[1:], *kwargs.values()) if isinstance(arg, torch.Tensor)]
        read = places[0] if name.startswith("scatter") and places else args[0]
        taken = self.recorder.taken(read)
        if isinstance(result, torch.Tensor) and self._is_chosen(taken.source):
            self.choices[self.recorder.source_of(result)] = _Choice(read.numel(), taken)

    def _located(self, name: str, mask: torch.Tensor, kwargs: Any) -> Any:
        """Positions of nonzero elements: the experts that are used, or the rows of one expert."""
        found = self._choice(self.recorder.taken(mask))
        if found is None:
            return None
        as_tuple = name == "where" or kwargs.get("as_tuple", False)
        if all(isinstance(size, int) for size in mask.shape) and mask.dim() == 1:
            experts = torch.arange(mask.shape[0])
            return (self._listed(experts),) if as_tuple else self._listed(experts[:, None])
        choice, one = found
        rows = choice.rows if self.first.setdefault(choice.of, one) == one else 0
        shapes = [(rows,)] * mask.dim() if as_tuple else [(rows, mask.dim())]
        made = self.recorder.whole(
            "aten", "nonzero", lambda: tuple(mask.new_empty(shape, dtype=torch.int64) for shape in shapes), [mask]
        )
        return made if as_tuple else made[0]

    def _counted(self, name: str, tensor: torch.Tensor) -> Any:
        """Number of rows of each expert, as Python numbers."""
        found = self._choice(self.recorder.taken(tensor))
        if found is None:
            return None
        counts = [found[0].rows] + [0] * (tensor.shape[0] - 1)
        if name == "tolist":
            return counts
        import numpy as np

        return np.array(counts, dtype=object)

    def _is_hit(self, tensor: torch.Tensor) -> bool | None:
        """Whether an expert gets any row."""
        row = self._row(self.recorder.source_of(tensor))
        found = self._choice(self.recorder.taken(tensor))
        if found is None or row is None:
            return None
        hit = self.first.setdefault(found[0].of, found[1]) == found[1]
        return hit != (row.op == "eq")

    # origin of a value -----------------------------------------------------------------------------------------------

    def _row(self, name: str) -> Row | None:
        for row in self.recorder.rows[len(self._rows) :]:
            self._rows[row.name] = row
        return self._rows.get(name)

    def _upstream(self, taken: RowInput) -> Iterator[tuple[RowInput, Row]]:
        """The rows that a value depends on, nearest first, back to the matrix product before the choice."""
        waiting, seen = [taken], set[str]()
        while waiting:
            one = waiting.pop(0)
            row = self._row(one.source)
            if row is None or row.name in seen or row.op in PRODUCTS or row.kind in PRODUCTS:
                continue
            seen.add(row.name)
            yield one, row
            waiting += row.inputs

    def _is_chosen(self, source: str) -> bool:
        return any(row.op in CHOOSING for _, row in self._upstream(RowInput(source, ())))

    def _choice(self, taken: RowInput) -> tuple[_Choice, RowInput] | None:
        """The choice of experts that a value derives from, and the input that identifies the expert."""
        found = next(((one, row) for one, row in self._upstream(taken) if row.name in self.choices), None)
        return None if found is None else (self.choices[found[1].name], found[0])


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool and bool(index.dim())

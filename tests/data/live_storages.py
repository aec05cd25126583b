"""What a PyTorch program holds: storages that autograd keeps, storages that live, and the order they come and go in."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def place(tensor: torch.Tensor) -> int:
    """Where a tensor and its views lie."""
    return tensor.untyped_storage()._cdata


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Collects the distinct storages that operations save for their gradients, but for those of `besides`."""

    def __init__(self, besides: Iterable[torch.Tensor]) -> None:
        self.known = {place(each) for each in besides}
        self.tensors: dict[int, torch.Tensor] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if place(tensor) not in self.known:
            self.tensors.setdefault(place(tensor), tensor.detach())
        return tensor

    @property
    def bytes(self) -> int:
        return sum(each.untyped_storage().nbytes() for each in self.tensors.values())

    def summary(self) -> str:
        """Shapes and formats, each with how often it is there."""
        kinds = Counter(
            f"{'x'.join(map(str, each.shape)) or '1'} {str(each.dtype).removeprefix('torch.')}"
            for each in self.tensors.values()
        )
        return "; ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())


class Live(TorchDispatchMode):
    """Follows every storage that an operation makes until nothing refers to it.

    events: (number of the storage, bytes) at its birth, (number, 0) at its death, in order; moments: name of the
    operation at each event
    """

    def __init__(self, besides: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self._besides = [StorageWeakRef(each.untyped_storage()) for each in besides]
        self._alive: dict[int, tuple[Any, int, int]] = {ref.cdata: (ref, -1, 0) for ref in self._besides}
        self.events: list[tuple[int, int]] = []
        self.moments: list[str] = []
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.sweep(str(func))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self._see(each, str(func))
        return out

    def _see(self, tensor: torch.Tensor, moment: str) -> None:
        ref = StorageWeakRef(tensor.untyped_storage())
        if ref.cdata in self._alive:
            return
        self._count += 1
        size = tensor.untyped_storage().nbytes()
        self._alive[ref.cdata] = (ref, self._count, size)
        self.events.append((self._count, size))
        self.moments.append(moment)

    def sweep(self, moment: str = "") -> None:
        """Note who died since the last operation."""
        for key in [key for key, (ref, number, _) in self._alive.items() if number >= 0 and ref.expired()]:
            self.events.append((self._alive.pop(key)[1], 0))
            self.moments.append(moment)

    @property
    def bytes(self) -> int:
        """Alive now."""
        self.sweep()
        return sum(size for _, _, size in self._alive.values())

    @property
    def peak(self) -> int:
        """The most that lived at once."""
        sizes: dict[int, int] = {}
        now = most = 0
        for number, size in self.events:
            now += size or -sizes.pop(number)
            if size:
                sizes[number] = size
            most = max(most, now)
        return most


class CudaDropout:
    """While entered, dropout keeps one byte an element, as on CUDA, whatever the device."""

    def __enter__(self) -> None:
        self._own = torch.nn.functional.dropout

        def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
            return torch.native_dropout(input, p, True)[0] if training and p else input

        torch.nn.functional.dropout = dropout

    def __exit__(self, *_: object) -> None:
        torch.nn.functional.dropout = self._own

"""A model's own forward in which one layer of each kind runs and the others are skipped.

A skipped layer returns new tensors with the shapes of the results of the layer that represents it, and dispatches no
operations. It is skipped only if its call is equivalent: arguments of the same structure, shapes and numbers, and the
same tensor objects wherever layers share them, such as a mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from graphsim.errors import GraphError
from graphsim.models.capture.calls import Call, Difference, arguments, arguments_by_path, compare, stand_in
from graphsim.models.capture.kinds import Stack, kinds, numbered

Result = TypeVar("Result")


class Place(NamedTuple):
    """A layer: the path of its stack and its position there."""

    stack: str
    layer: int


class KindsDiffer(GraphError):
    """Skipped layers turned out to be called differently from the layer that represents them.

    apart: layers that must run in the next attempt
    """

    def __init__(self, apart: Collection[Place], why: str) -> None:
        names = ", ".join(f"{stack}.{layer}" for stack, layer in sorted(apart))
        super().__init__(f"{names}: not called as the layers of the same kind before: {why}")
        self.apart = frozenset(apart)


class SkippedLayers:
    """The state of `one_of_each`: layers that ran, layers that were skipped, and their calls.

    given: the stacks
    apart: layers that are never skipped
    source: the skipped layer that returned a tensor, by the tensor's id; the tensors live as long as this object
    """

    def __init__(self, stacks: Sequence[Stack], apart: Collection[Place] = ()) -> None:
        self.given = tuple(stacks)
        self.apart = frozenset(apart)
        self.source: dict[int, Place] = {}
        self._kinds = {Place(stack.path, i): kind for stack in stacks for i, kind in enumerate(stack.keys)}
        self._leaders: dict[Place, Place] = {}
        self._calls: defaultdict[Place, list[Call]] = defaultdict(list)
        self._passed: defaultdict[Place, int] = defaultdict(int)
        self._kept: list[torch.Tensor] = []

    @property
    def stacks(self) -> list[Stack]:
        """The stacks with the kinds as found at run time; layers that were not called form a kind of their own."""
        found = []
        for stack in self.given:
            leaders = [self._leaders.get(Place(stack.path, i)) for i in range(len(stack.keys))]
            keys = numbered(list(zip(stack.keys, leaders, strict=True)))
            found.append(Stack(path=stack.path, names=stack.names, keys=keys))
        return found

    def forward(self, place: Place, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a layer, or skip it and return tensors like the results of the layer that represents it."""
        given = arguments(run, args, kwargs)
        leader = self._leaders.get(place) or self._leaders.setdefault(place, self._leader_for(place, given))
        if leader != place:
            return self._pass_over(place, leader, given)
        call = Call(place.layer, given)
        self._calls[place].append(call)
        return call.returned(run(*args, **kwargs))

    def _leader_for(self, place: Place, given: dict[str, Any]) -> Place:
        """The layer of the same kind whose first call shares most arguments with this one; else the layer itself."""
        best, most = place, -1
        for other in [] if place in self.apart else list(self._calls):
            if (other.stack, self._kinds[other]) != (place.stack, self._kinds[place]):
                continue
            try:
                shared = compare(self._calls[other][0], place.layer, given)
                odd, _ = self._calls[other][0].odd_ones(place.layer, shared)
            except Difference:
                continue
            if place.layer not in odd and len(shared.same) > most:
                best, most = other, len(shared.same)
        return best

    def _pass_over(self, place: Place, leader: Place, given: dict[str, Any]) -> Any:
        number = self._passed[place]
        self._passed[place] += 1
        if number >= len(self._calls[leader]):
            raise KindsDiffer({place}, f"layer {leader.layer} was called {number} times only")
        call = self._calls[leader][number]
        try:
            shared = compare(call, place.layer, given)
        except Difference as difference:
            raise KindsDiffer({place}, str(difference)) from None
        odd, why = call.odd_ones(place.layer, shared)
        if odd:
            raise KindsDiffer({Place(place.stack, layer) for layer in odd}, f"{why} is another tensor")
        call.followers[place.layer] = shared
        result, fresh = stand_in(call, arguments_by_path(given))
        self._kept += fresh
        self.source.update({id(tensor): place for tensor in fresh})
        return result


@contextmanager
def one_of_each(model: nn.Module, stacks: Sequence[Stack], apart: Collection[Place] = ()) -> Iterator[SkippedLayers]:
    """Context in which the first layer of each kind runs and the others are skipped.

    The same context must cover a prompt and the decode steps after it, since a layer skipped in the prompt has no
    cache. Caches are not modified: what a model reads from a cache before any layer runs, such as its length, comes
    from the first layer of a kind.

    apart: layers that run regardless of their kind

    Raises:
        KindsDiffer: layers of one kind turn out to be called differently after they were skipped.
    """
    passed = SkippedLayers(stacks, apart)
    modules = dict(model.named_modules(remove_duplicate=False))
    patched: dict[int, tuple[nn.Module, Any]] = {}
    for stack in stacks:
        for i, name in enumerate(stack.names):
            module = modules[name]
            if id(module) not in patched:
                patched[id(module)] = module, vars(module).get("forward")
                module.forward = _patched(passed, Place(stack.path, i), module.forward)
    try:
        yield passed
    finally:
        for module, before in patched.values():
            if before is None:
                del module.forward
            else:
                module.forward = before


def _patched(passed: SkippedLayers, place: Place, run: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return passed.forward(place, run, args, kwargs)

    return forward


def outermost(stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks that are not inside a layer of another stack."""
    found: list[Stack] = []
    for stack in stacks:
        inside = (f"{name}." for other in found for name in other.names)
        if not any(name.startswith(prefix) for prefix in inside for name in stack.names):
            found.append(stack)
    return found


def run_one_of_each(model: nn.Module, run: Callable[[SkippedLayers], Result]) -> Result:
    """Call `run` in the context `one_of_each`; repeat it while skipped layers turn out to be called differently.

    Stacks inside the layers of another stack run completely.
    """
    stacks, apart = outermost(kinds(model)), frozenset[Place]()
    while True:
        try:
            with one_of_each(model, stacks, apart) as passed:
                return run(passed)
        except KindsDiffer as found:
            if found.apart <= apart:
                raise
            apart |= found.apart

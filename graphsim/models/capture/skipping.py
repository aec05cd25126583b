"""A model's own forward in which one layer of each kind runs and the others are passed over.

A layer that is passed over yields fresh tensors of the shapes that the layer run in its place yielded, and dispatches
nothing that a mode could see. It is passed over only when it is called as that layer was: with the same structure,
shapes and numbers, and with the same tensor wherever layers share one, such as a mask.
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
    """Layers taken for alike turned out not to be, too late to run them; `apart` are those that must run next time."""

    def __init__(self, apart: Collection[Place], why: str) -> None:
        names = ", ".join(f"{stack}.{layer}" for stack, layer in sorted(apart))
        super().__init__(f"{names}: not called as the layers of the same kind before: {why}")
        self.apart = frozenset(apart)


class PassedOver:
    """What happens while `one_of_each` is entered.

    source: the layer passed over that yielded a tensor, by the tensor's id; these tensors live as long as this does
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
        """The stacks with the kinds as they turned out; layers that were not called are a kind of their own."""
        found = []
        for stack in self.given:
            leaders = [self._leaders.get(Place(stack.path, i)) for i in range(len(stack.keys))]
            keys = numbered(list(zip(stack.keys, leaders, strict=True)))
            found.append(Stack(path=stack.path, names=stack.names, keys=keys))
        return found

    def forward(self, place: Place, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a layer, or yield what the layer that runs in its place yielded in the same call."""
        given = arguments(run, args, kwargs)
        leader = self._leaders.get(place) or self._leaders.setdefault(place, self._leader_for(place, given))
        if leader != place:
            return self._pass_over(place, leader, given)
        call = Call(place.layer, given)
        self._calls[place].append(call)
        return call.returned(run(*args, **kwargs))

    def _leader_for(self, place: Place, given: dict[str, Any]) -> Place:
        """The layer of the same kind whose first call is most like this one; the layer itself if none is."""
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
def one_of_each(model: nn.Module, stacks: Sequence[Stack], apart: Collection[Place] = ()) -> Iterator[PassedOver]:
    """Let the first layer of each kind run and pass over the others.

    One context serves a prompt and the decode steps after it: a layer passed over in the prompt has no cache. Caches
    are left as they are: what is read of a cache before any layer runs, such as its length, is read of the first layer
    of a kind.

    apart: layers that run whatever their kind.

    Raises:
        KindsDiffer: where layers of one kind turn out to be called differently after they were passed over.
    """
    passed = PassedOver(stacks, apart)
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


def _patched(passed: PassedOver, place: Place, run: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return passed.forward(place, run, args, kwargs)

    return forward


def outermost(stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks that lie in no layer of another one."""
    found: list[Stack] = []
    for stack in stacks:
        inside = (f"{name}." for other in found for name in other.names)
        if not any(name.startswith(prefix) for prefix in inside for name in stack.names):
            found.append(stack)
    return found


def run_one_of_each(model: nn.Module, run: Callable[[PassedOver], Result]) -> Result:
    """`run` under `one_of_each`, again from the start while layers taken for alike turn out not to be.

    Stacks inside the layers of another one run whole.
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

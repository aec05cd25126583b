"""Frozen descriptions that cache values computed from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from graphsim.symbolic.memo import Memo
from graphsim.symbolic.substitute import names_of

T = TypeVar("T")


class Memoised:
    """Base of a frozen dataclass without slots; copies and pickles of an object start with an empty cache."""

    def once(self, work_out: Callable[..., T], *parts: Any) -> T:
        """`work_out(self, *parts)`, called only the first time.

        work_out: a function at module level, by which the result is found again
        parts: frozen objects or plain values, compared as a Memo compares them
        """
        result: T = self._results.get((work_out, *parts), lambda: work_out(self, *parts))
        return result

    @cached_property
    def _results(self) -> Memo[Any]:
        return Memo(most=32)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: results are found by the identity of objects, which another process does not have."""
        kind: Any = type(self)
        return {name: getattr(self, name) for name in names_of(kind)}

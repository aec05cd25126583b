"""Python's operators for objects that record operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.symbolic.operations import Function


class Operators:
    """Operators mapped to numpy functions."""

    __slots__ = ()

    @staticmethod
    def _done(function: Function, *operands: Any) -> Any:
        raise NotImplementedError

    def __add__(self, other: Any) -> Any:
        return self._done(np.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._done(np.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._done(np.subtract, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._done(np.subtract, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._done(np.multiply, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._done(np.multiply, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._done(np.true_divide, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._done(np.true_divide, other, self)

    def __mod__(self, other: Any) -> Any:
        return self._done(np.mod, self, other)

    def __floordiv__(self, other: Any) -> Any:
        return self._done(np.floor_divide, self, other)

    def __pow__(self, other: Any) -> Any:
        return self._done(np.power, self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._done(np.power, other, self)

    def __neg__(self) -> Any:
        return self._done(np.multiply, self, -1.0)

    def __abs__(self) -> Any:
        return self._done(np.absolute, self)

    def __eq__(self, other: object) -> Any:
        return self._done(np.equal, self, other)

    def __ne__(self, other: object) -> Any:
        return self._done(np.not_equal, self, other)

    def __lt__(self, other: Any) -> Any:
        return self._done(np.less, self, other)

    def __le__(self, other: Any) -> Any:
        return self._done(np.less_equal, self, other)

    def __gt__(self, other: Any) -> Any:
        return self._done(np.greater, self, other)

    def __ge__(self, other: Any) -> Any:
        return self._done(np.greater_equal, self, other)

    def __and__(self, other: Any) -> Any:
        return self._done(np.logical_and, self, other)

    def __or__(self, other: Any) -> Any:
        return self._done(np.logical_or, self, other)

    __rand__, __ror__ = __and__, __or__

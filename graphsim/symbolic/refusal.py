"""Why an operation cannot be recorded, and the line of code that needs it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_OWN = (str(Path(__file__).resolve().parent), str(Path(np.__file__).resolve().parent), "<__array_function__")
"""Code that acts on behalf of a caller: the symbols themselves, and numpy."""


class NotRecordable(Exception):
    """Code needs an actual number where there is only a symbol."""


CONFUSED = (NotRecordable, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions that a function written for actual numbers may raise for a symbol."""


def refusal(asked: str, operands: Iterable[Any]) -> NotRecordable:
    """The error for an unsupported operation, such as `numpy.median of a symbol`: `gemm.py:90: numpy.median of a
    symbol`.

    The tapes of the symbols record it, since the caller may swallow the exception.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    error = NotRecordable(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: {asked}")
    for operand in operands:
        if hasattr(operand, "tape"):
            operand.tape.refused = str(error)
    return error


def reason(error: Exception) -> str:
    """Why a function could not be recorded, from its exception, with file and line."""
    if isinstance(error, NotRecordable):
        return str(error)
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = place if code.co_filename.startswith(_OWN) else f"{Path(code.co_filename).name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{place}{type(error).__name__}: {error}"

"""Why something cannot be recorded, and which line of whose code asked for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_OWN = (str(Path(__file__).resolve().parent), str(Path(np.__file__).resolve().parent), "<__array_function__")
"""Where code that asks on behalf of somebody else lies: the symbols themselves, and numpy."""


class NotRecordable(Exception):
    """A formula asked for an actual number where there is only a symbol."""


CONFUSED = (NotRecordable, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a function that was written for actual numbers may raise at a symbol."""


def refusal(asked: str, operands: Iterable[Any]) -> NotRecordable:
    """The refusal of what was asked, such as `numpy.median of a symbol`: `gemm.py:90: numpy.median of a symbol`.

    The tapes of the symbols among the operands remember it, since the caller may swallow the exception.
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
    """Why a function could not be recorded, from what it raised at a symbol, with file and line."""
    if isinstance(error, NotRecordable):
        return str(error)
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = place if code.co_filename.startswith(_OWN) else f"{Path(code.co_filename).name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{place}{type(error).__name__}: {error}"

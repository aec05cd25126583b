"""What fitted parameters are made of: equal parts make equal formulas, whatever dict they were put together in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphsim.cost.families.blend import Blend
from graphsim.cost.parameters.engines import is_fit
from graphsim.cost.residuals import RESIDUALS


def parts_of(fits: Any) -> Iterator[Any]:
    """Fits by name, each by identity: what is put together for a device and an engine holds the same fits."""
    if isinstance(fits, Blend):
        for member in fits.members:
            yield from parts_of(member)
    elif is_fit(fits):
        yield fits
    else:
        for name, part in fits.items():
            if name != RESIDUALS:
                yield name
                yield from parts_of(part)

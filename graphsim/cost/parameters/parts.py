"""The parts of fitted parameters: equal parts give equal formulas, regardless of the dict that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphsim.cost.families.blend import Blend
from graphsim.cost.parameters.engines import is_fit
from graphsim.cost.residuals import RESIDUALS


def parts_of(fits: Any) -> Iterator[Any]:
    """Fits by name, compared by identity: parameters assembled for a device and an engine share the same fits."""
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

"""The table that sweeps and comparisons return."""

from __future__ import annotations

import pandas as pd

from graphsim.display.notebook import frame_html


class Table(pd.DataFrame):
    """A pandas DataFrame that a notebook shows with human units; what is derived from it is one as well."""

    @property
    def _constructor(self) -> type[Table]:
        return Table

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return frame_html(self)

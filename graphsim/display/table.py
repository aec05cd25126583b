"""The table that sweeps and comparisons return."""

from __future__ import annotations

import pandas as pd

from graphsim.display.notebook import frame_html


class Table(pd.DataFrame):
    """A pandas DataFrame that a notebook shows with readable units; frames derived from it are Tables too."""

    @property
    def _constructor(self) -> type[Table]:
        return Table

    def __repr__(self) -> str:
        """At most six rows; `to_string()` gives all."""
        with pd.option_context("display.max_rows", 6, "display.min_rows", 4, "display.show_dimensions", True):
            return super().__repr__()

    def _repr_html_(self) -> str:
        """HTML for a notebook."""
        return frame_html(self)

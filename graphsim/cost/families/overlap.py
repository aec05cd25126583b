"""Time of two kinds of work that overlap: the longer of the two, and more if they are about equally long.

Powers are written as products, which numpy rounds the same for a number and within an array.
"""

from __future__ import annotations

import numpy as np

from graphsim.units import Num


def overlapped(x: Num, y: Num) -> Num:
    """(x⁴ + y⁴)^¼, of times that are not negative."""
    x, y = x * x, y * y
    fourth_root: Num = np.sqrt(np.sqrt(x * x + y * y))
    return fourth_root


def loosely_overlapped(x: Num, y: Num) -> Num:
    """(x³ + y³)^⅓, of times that are not negative."""
    cube_root: Num = np.cbrt(x * x * x + y * y * y)
    return cube_root

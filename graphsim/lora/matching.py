"""How target names are understood, and how large a rank may be."""

from __future__ import annotations

from enum import Enum

MAX_RANK = 65_536
"""Beyond this a rank is a mistake."""


class Matching(Enum):
    """How target names are understood.

    NAMES: the LoRA document's words first, PEFT's rules for all others; PEFT: PEFT's rules only
    """

    NAMES = "names"
    PEFT = "peft"

"""Speculation as a scheduler sees it."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.speculation.acceptance import AcceptanceRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """What a scheduler knows of speculation.

    tokens: drafted for each sequence and step
    acceptance: how many of them are accepted
    seed: of the draws
    """

    tokens: int
    acceptance: AcceptanceRef
    seed: int = 0

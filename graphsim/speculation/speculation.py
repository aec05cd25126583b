"""The settings of speculative decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.brief import settings_text
from graphsim.errors import ConfigError
from graphsim.models.config import ModelConfig
from graphsim.ops.precision import Precision, load_precision
from graphsim.speculation.acceptance import (
    AcceptanceRef,
    check_covers,
    checked_acceptance,
    steps_for,
    tokens_per_step,
)
from graphsim.units import Num, amount_text, checked_number, short

MOST_TOKENS = 64
"""Drafted in a step at most."""
NGRAM, MTP = "ngram", "mtp"
"""Drafts that are no model's name: tokens copied from the text so far; the model's own layers for further tokens."""

DraftRef = str | Path | Mapping[str, Any] | ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speculation:
    """Speculative decoding: a draft proposes tokens for each sequence, and the model verifies them in one step.

    draft: a smaller model (name, YAML, config.json, folder, mapping or ModelConfig); the config of EAGLE, Medusa,
        DFlash or MTP heads; `mtp` for the layers that the model's own config has for further tokens; `ngram` for tokens
        looked up in the text so far, which takes no model
    tokens: number drafted for each sequence and step, 0 for none; may be an array over scenarios
    acceptance: probability that a drafted token is accepted, given that those before it are; a list with one for each
        position; or a distribution {accepted tokens: probability}. An array has one probability per scenario.
    draft_tp: tensor-parallel degree of the draft, by default that of the model
    precision: number formats of the draft,
        by default its checkpoint's own, or bf16
    seed: of random draws in simulations over time
    The draft runs without an adapter, as in real engines, so `acceptance` must be that of a base-model draft for the
    adapted model. Raises ConfigError for a value that is not allowed.
    """

    draft: DraftRef
    tokens: Num
    acceptance: AcceptanceRef
    draft_tp: int | None = None
    precision: str | Precision | None = None
    seed: int = 0

    def __repr__(self) -> str:
        return settings_text(self, always=("draft", "tokens", "acceptance"))

    def __post_init__(self) -> None:
        if not isinstance(self.draft, str | Path | Mapping | ModelConfig) or self.draft == "":
            raise ConfigError(
                f"speculation.draft = {short(self.draft)} is not allowed; expected a model, '{MTP}' or '{NGRAM}'"
            )
        tokens = checked_number("speculation.tokens", self.tokens, 0, MOST_TOKENS)
        acceptance = checked_acceptance(self.acceptance)
        check_covers(acceptance, tokens)
        object.__setattr__(self, "tokens", float(tokens) if isinstance(tokens, int) else tokens)
        object.__setattr__(self, "acceptance", acceptance)
        if self.draft_tp is not None:
            checked_number("speculation.draft_tp", self.draft_tp, 1, one=True)
        if self.precision is not None:
            object.__setattr__(self, "precision", load_precision(self.precision))
        checked_number("speculation.seed", self.seed, 0, one=True)

    @property
    def tokens_per_step(self) -> Num:
        """Mean tokens per verified step, 1 to tokens + 1 (`graphsim.speculation.acceptance.tokens_per_step`)."""
        return tokens_per_step(self.acceptance, self.tokens)

    def steps_for(self, wanted: Num) -> Num:
        """Mean number of steps that generate `wanted` tokens."""
        return steps_for(self.acceptance, self.tokens, wanted)

    @property
    def never(self) -> bool:
        """Whether nothing is ever drafted."""
        return not np.any(np.greater(self.tokens, 0.0))

    @property
    def draft_name(self) -> str:
        """The draft's name for display."""
        named = self.draft.name if isinstance(self.draft, ModelConfig) else self.draft
        return str(named) if isinstance(named, str | Path) else "a mapping"

    @property
    def label(self) -> str:
        """One line for tables: draft, tokens, mean tokens per step."""
        tokens, mean = (
            short(value) if np.ndim(value) else amount_text(value) for value in (self.tokens, self.tokens_per_step)
        )
        return f"{self.draft_name}: {tokens} drafted, {mean} a step"

    def to_dict(self) -> dict[str, Any]:
        """The settings, by name."""
        return {
            "draft": self.draft_name, "tokens": self.tokens,
            "acceptance": self.acceptance, "draft_tp": self.draft_tp,
        }  # fmt: skip


def checked_speculation(value: Any) -> Speculation | None:
    """A checked `speculation` argument. Raises ConfigError for anything but a Speculation or None."""
    if value is None or isinstance(value, Speculation):
        return value
    raise ConfigError(
        f"speculation = {short(value)} is not a Speculation; expected gs.Speculation(draft=…, tokens=…, acceptance=…)"
    )

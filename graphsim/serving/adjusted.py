"""Constants of a host that can be fitted to a user's own runs, and step prices adjusted by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.step_price import DraftingPrice, StepPrice
from graphsim.units import checked_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant that may be fitted.

    neutral: its value without any adjustment
    least, most: its bounds
    step: the increment of trials, which also
        defines what counts as a small change; factor: whether it is a multiplier, so that its logarithm is fitted
    """

    meaning: str
    neutral: float
    least: float
    most: float
    step: float
    factor: bool = False


CONSTANTS: Mapping[str, Constant] = {
    "request_s": Constant(
        meaning="seconds of a request through the server's front end and of its first token back (HTTP, tokenising)",
        neutral=0.0, least=0.0, most=10.0, step=0.004,
    ),
    "token_s": Constant(
        meaning="seconds more of that for each token of the prompt", neutral=0.0, least=0.0, most=0.01, step=2e-6,
    ),
    "step_s": Constant(
        meaning="seconds that each step takes beside what it is priced at (scheduling, sampling, launches)",
        neutral=0.0, least=0.0, most=1.0, step=0.0005,
    ),
    "step_factor": Constant(
        meaning="factor on the price of each step (kernels, clocks, power)",
        neutral=1.0, least=0.1, most=10.0, step=0.03, factor=True,
    ),
}  # fmt: skip
"""Constants by their names; request_s and token_s are those of an engine profile's host."""


def neutral(name: str) -> float:
    """A constant's value without any adjustment. Raises ConfigError for an unknown name."""
    if name not in CONSTANTS:
        raise ConfigError(f"constant '{name}' is not known; {choices_text(name, CONSTANTS)}")
    return CONSTANTS[name].neutral


def checked_constants(found: Mapping[str, float]) -> dict[str, float]:
    """Constants with values within their bounds. Raises ConfigError naming a value outside them."""
    checked = {}
    for name, value in found.items():
        neutral(name)
        known = CONSTANTS[name]
        checked[name] = float(checked_number(name, value, known.least, known.most, whole=False, one=True))
    return checked


@dataclass(frozen=True, slots=True)
class AdjustedPrice:
    """Prices of steps with a factor and an offset; loads are unchanged."""

    price: StepPrice
    step_factor: float = 1.0
    step_s: float = 0.0

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """As `StepPrice.decode`."""
        seconds, longer, steps = self.price.decode(batch, context, adapters)
        return seconds * self.step_factor + self.step_s, longer * self.step_factor, steps

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `StepPrice.mixed`."""
        seconds = self.price.mixed(prompt_tokens, pairs, prompts, ending, batch, context, adapters)
        return seconds * self.step_factor + self.step_s

    def behind_s(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As `DraftingPrice.behind_s`; none where the prices are not of a server that drafts."""
        if not isinstance(self.price, DraftingPrice):
            return 0.0
        return self.step_factor * self.price.behind_s(prompt_tokens, pairs, prompts, ending, batch, context, adapters)

    def load(self, adapter: int, from_disk: bool) -> float:
        """As `StepPrice.load`."""
        return self.price.load(adapter, from_disk)


def inner(name: str, value: float) -> float:
    """A constant's value in the fit's coordinates: in trial steps, for a factor its logarithm."""
    known = CONSTANTS[name]
    return math.log(value) / known.step if known.factor else value / known.step


def outer(name: str, value: float) -> float:
    """The inverse of `inner`, within the bounds."""
    known = CONSTANTS[name]
    found = math.exp(min(value * known.step, 50.0)) if known.factor else value * known.step
    return min(max(found, known.least), known.most)

"""What pictures and notebooks show: the parts of an estimate and of a step that they ask for."""

from __future__ import annotations

from typing import Protocol

import networkx as nx

from graphsim.deployment.energy import Energy
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import Memory
from graphsim.units import Num


class ShownStep(Protocol):
    """One step of the model; `result.PhaseEstimate` is one."""

    @property
    def name(self) -> str:
        """`prefill` or `decode`."""

    @property
    def graph(self) -> nx.DiGraph:
        """Annotated and scheduled."""

    @property
    def latency_s(self) -> Num:
        """Time from the first launch to the last result."""


class ShownEstimate(Protocol):
    """A batch of requests with its figures, one for each scenario; `result.Estimate` is one."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def hardware(self) -> str:
        """Name of the device."""

    @property
    def ttft_s(self) -> Num:
        """Time to the first token."""

    @property
    def tpot_s(self) -> Num:
        """Mean time of each further token."""

    @property
    def latency_s(self) -> Num:
        """Time of the whole batch."""

    @property
    def tokens_per_s(self) -> Num:
        """Generated tokens of the whole batch per second."""

    @property
    def one_time_s(self) -> Num:
        """Work done once before serving."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, assumed or not measured."""

    @property
    def prefill(self) -> ShownStep:
        """The step of the prompts."""

    @property
    def decode(self) -> ShownStep:
        """The step of one token each."""

    @property
    def memory(self) -> Memory:
        """Bytes per device."""

    def intervals(self, coverage: float = ...) -> dict[str, tuple[Num, Num]]:
        """The ranges in which figures are expected, where residuals are recorded."""

    @property
    def energy(self) -> Energy:
        """Joules and watts."""

    @property
    def inference(self) -> Inference | None:
        """What was simulated."""

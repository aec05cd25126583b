"""Protocols of an estimate and a step: the attributes that pictures and notebooks use."""

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
        """The step's graph, annotated and scheduled."""

    @property
    def latency_s(self) -> Num:
        """Seconds from the first launch to the last result."""


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
        """Time to the first token, in seconds."""

    @property
    def tpot_s(self) -> Num:
        """Mean time per further token, in seconds."""

    @property
    def latency_s(self) -> Num:
        """Time of the whole batch, in seconds."""

    @property
    def tokens_per_s(self) -> Num:
        """Generated tokens of the whole batch per second."""

    @property
    def one_time_s(self) -> Num:
        """Seconds of work done once before serving."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was left out, assumed or not measured."""

    @property
    def prefill(self) -> ShownStep:
        """The prompt step."""

    @property
    def decode(self) -> ShownStep:
        """The decode step."""

    @property
    def memory(self) -> Memory:
        """Memory per device, in bytes."""

    def intervals(self, coverage: float = ...) -> dict[str, tuple[Num, Num]]:
        """Low and high end of each figure's interval, by name; empty if no residuals are recorded."""

    @property
    def energy(self) -> Energy:
        """Energy in joules and power in watts."""

    @property
    def inference(self) -> Inference | None:
        """The inference that was simulated."""

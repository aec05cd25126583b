"""A whole training run: number of steps, evaluations, checkpoints, and merges of adapters."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from graphsim.deployment.scenarios import count
from graphsim.errors import ConfigError
from graphsim.units import Num, as_number, bounds_text, parse_quantity, short

DISK_BYTES_PER_S = 1000 * 2.0**20
"""Disk rate of a cloud's network volume as offered with it: Amazon EC2 API, CreateVolume, `Throughput` of a gp3
volume, 125 to 1,000 MiB/s (2,000 since 2025). Local NVMe and parallel file systems write several times as fast."""

FAILURE_DEVICE_HOURS = 54 * 24 * 16384 / 419
"""Hours of one device between two failures that stop a run: 419 unexpected interruptions in 54 days on 16,384 H100
(Llama Team, "The Llama 3 Herd of Models", arXiv 2407.21783, Table 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A training run from the first step to the last.

    tokens: total number of tokens; or epochs: passes over a dataset of `dataset_tokens` tokens or `dataset_samples`
        sequences; or steps: number of optimizer steps
    evaluate_every: steps between evaluations of `evaluation_tokens` tokens; 0 for none
    checkpoint_every: steps between checkpoints; 0 for one at the end
    disk_bytes_per_s: rate at which the whole job writes and reads a checkpoint; or a text, `2 GB/s`
    failure_device_hours: device-hours between failures of the run; None for no failures
    restart_s: seconds from a failure until the checkpoint is read
    relora_every: steps between merges of ReLoRA; 0 for none. warm_start_steps: steps of full training before the first
        merge; rewarm_steps: steps after each merge in which the learning rate rises again; pruned: share of the
        optimizer states that a merge sets to zero
    """

    tokens: Num | None = None
    epochs: Num | None = None
    steps: Num | None = None
    dataset_tokens: Num | None = None
    dataset_samples: Num | None = None
    evaluate_every: Num = 0
    evaluation_tokens: Num = 0
    checkpoint_every: Num = 0
    disk_bytes_per_s: Num = DISK_BYTES_PER_S
    failure_device_hours: Num | None = None
    restart_s: Num = 300.0
    relora_every: Num = 0
    warm_start_steps: Num = 0
    rewarm_steps: Num = 0
    pruned: Num = 0.9

    def __post_init__(self) -> None:
        """Raise ConfigError naming the argument, the value and what is allowed."""
        disk: object = self.disk_bytes_per_s
        if isinstance(disk, str):
            object.__setattr__(self, "disk_bytes_per_s", _rate(disk))
        for name in (
            "tokens",
            "epochs",
            "dataset_tokens",
            "dataset_samples",
            "disk_bytes_per_s",
            "failure_device_hours",
        ):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name, most in (("evaluation_tokens", np.inf), ("restart_s", np.inf), ("pruned", 1.0)):
            object.__setattr__(self, name, _number(name, getattr(self, name), least=0.0, most=most))
        for name in ("evaluate_every", "checkpoint_every", "relora_every", "warm_start_steps", "rewarm_steps"):
            object.__setattr__(self, name, count(name, getattr(self, name), least=0))
        if self.steps is not None:
            object.__setattr__(self, "steps", count("steps", self.steps))
        self._check_length()
        self._check_pairs()

    def _check_length(self) -> None:
        given = [name for name in ("tokens", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} were given" if given else "none was given"
            raise ConfigError(f"a plan needs one of tokens, epochs and steps; {said}")
        sizes = [name for name in ("dataset_tokens", "dataset_samples") if getattr(self, name) is not None]
        if self.epochs is not None and len(sizes) != 1:
            raise ConfigError(
                f"epochs = {short(self.epochs)} needs the dataset's size: one of dataset_tokens and dataset_samples"
            )
        if self.epochs is None and sizes:
            raise ConfigError(f"{sizes[0]} is the size of an epoch and needs epochs, not {given[0]}")

    def _check_pairs(self) -> None:
        evaluates, reads = np.greater(self.evaluate_every, 0), np.greater(self.evaluation_tokens, 0)
        if np.any(evaluates) and not np.all(reads):
            raise ConfigError(
                f"evaluation_tokens = {short(self.evaluation_tokens)} is not allowed with evaluate_every = "
                f"{short(self.evaluate_every)}; expected how many tokens an evaluation reads"
            )
        for name in ("warm_start_steps", "rewarm_steps"):
            if np.any(np.greater(getattr(self, name), 0)) and not np.any(np.greater(self.relora_every, 0)):
                raise ConfigError(f"{name} applies to ReLoRA only; give relora_every with it")

    def steps_of(self, tokens_per_step: Num, sequences_per_step: Num) -> Num:
        """Optimizer steps in all; the last one of an epoch may be a part of one."""
        if self.steps is not None:
            return self.steps
        if self.tokens is not None:
            return _up(self.tokens / tokens_per_step)
        if self.epochs is None:
            raise ConfigError("a plan needs one of tokens, epochs and steps; none was given")
        if self.dataset_samples is not None:
            return _up(self.epochs * _up(self.dataset_samples / sequences_per_step))
        return _up(self.epochs * _up((self.dataset_tokens or 0.0) / tokens_per_step))


NAMES = tuple(field.name for field in fields(Course))
"""Arguments of a course, for functions that take these among others."""


def _up(value: Num) -> Num:
    """The value rounded up; values within rounding of a whole number count as that."""
    return np.ceil(value - 1e-9 * np.maximum(np.abs(value), 1.0))[()]


def _rate(text: str) -> float:
    try:
        return parse_quantity(text, "bytes/s")
    except ConfigError as error:
        raise ConfigError(f"disk_bytes_per_s: {error}") from None


def _number(name: str, value: object, *, least: float | None = None, most: float = np.inf) -> Num:
    """A number above 0, or from `least` on."""
    number = as_number(value)
    if number is not None and np.all(np.isfinite(number)):
        enough = np.greater(number, 0.0) if least is None else np.greater_equal(number, least)
        if np.all(enough & np.less_equal(number, most)):
            return number
    bounds = "above 0" if least is None else bounds_text(least, float(most))
    raise ConfigError(f"{name} = {short(value)} is not allowed; expected a number {bounds}")

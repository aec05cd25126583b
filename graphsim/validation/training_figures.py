"""Figures of training runs by their names in tables, computed from an estimate in the table's unit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.measured import Row
from graphsim.validation.training_cases import TrainingCase

NOT_SIMULATED = (
    "time_to_target", "samples_to_target", "eval_time", "eval_throughput", "adapter_file_size", "max_sequence_length",
    "memory_reserved_avg", "train_time_run", "activation_memory_relative",
)  # fmt: skip
"""Quantities of whole runs, of evaluations and of files, which a step does not have."""
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
SAMPLES = 1024.0
"""Number of samples that the time of fsdp_qlora's benchmark is for."""
NVIDIA_SMI_MIB = 500.0
"""MiB that nvidia-smi counts beyond PyTorch's reserved bytes: a process's CUDA context and NCCL buffers."""


def figure(row: Row, case: TrainingCase, found: Any) -> float:
    """The prediction of a row's metric, in its unit. Raises ConfigError for a metric that a step does not have."""
    name, unit = str(row["metric"]), str(row.get("unit", ""))
    for start, read in FIGURES.items():
        if name.startswith(start):
            return float(np.asarray(read(case, found, _Row(row, unit)), dtype=float))
    raise ConfigError("not simulated")


def is_simulated(name: str) -> bool:
    """Whether a step has a quantity of this name."""
    return name not in NOT_SIMULATED and any(name.startswith(start) for start in FIGURES)


def kind_of(name: str) -> str:
    """The group in which a metric is judged: `time`, `memory`, `fits` or `count`."""
    if name == "did_not_run":
        return "fits"
    if "memory" in name:
        return "memory"
    return "count" if "param" in name else "time"


class _Row:
    """A row with its unit."""

    def __init__(self, row: Row, unit: str) -> None:
        self.row, self.unit = row, unit

    def bytes(self, value: Any) -> float:
        """Bytes in the row's unit. Raises ConfigError if the file does not state the unit."""
        if self.unit not in BYTES:
            raise ConfigError(f"unit = {self.unit!r} of a memory is not stated clearly; known: {', '.join(BYTES)}")
        return float(value) / BYTES[self.unit]

    def seconds(self, value: Any) -> float:
        """Seconds in the row's unit."""
        if self.unit not in SECONDS:
            raise ConfigError(f"unit = {self.unit!r} of a time is not known; allowed: {', '.join(SECONDS)}")
        return float(value) / SECONDS[self.unit]


def _step(case: TrainingCase, found: Any, row: _Row) -> float:
    return row.seconds(found.step_s * case.part)


def _per_gpu(case: TrainingCase, found: Any, row: _Row) -> float:
    return case.tokens / float(found.step_s) / case.devices


def _tokens(case: TrainingCase, found: Any, row: _Row) -> float:
    """Tokens per second of all devices, or per device if the unit says so."""
    return case.tokens / float(found.step_s) / (case.devices if re.search(r"/GPU|per device", row.unit) else 1.0)


def _samples(case: TrainingCase, found: Any, row: _Row) -> float:
    """Samples per second of the whole system; MLPerf's GPT-3 logs count tokens under the same name."""
    rate = case.samples / float(found.step_s)
    return rate * case.seq_len if str(row.row.get("model", "")).upper().startswith("GPT-3") else rate


def _mfu(case: TrainingCase, found: Any, row: _Row) -> float:
    """MFU as the row defines it: (6 N T + 12 L d T^2 per sequence) / peak if stated, otherwise the estimate's own."""
    scale = 100.0 if row.unit == "%" else 1.0
    counted = re.search(r"NumParams (\d+)", str(row.row.get("note", "")))
    if "unmasked attention" not in str(row.row.get("note", "")) or not counted:
        return scale * float(found.mfu)
    model = case.model
    each = 6.0 * float(counted[1]) * case.seq_len + 12.0 * model.num_layers * model.hidden_size * case.seq_len**2
    peak = case.hardware.flops_per_s["fp8" if case.precision == "fp8" else "bf16"]
    return scale * each * case.samples / float(found.step_s) / case.devices / float(peak)


def _model_tflops(case: TrainingCase, found: Any, row: _Row) -> float:
    """Model Tflop/s from the row's flops per token, if it also gives tokens per second, and the estimate's time."""
    told = row.row.get("tokens_beside")
    if told:
        return float(row.row["value"]) / float(told) * _per_gpu(case, found, row)
    peak = float(case.hardware.flops_per_s[found.peak_format])
    return float(found.mfu) * peak / 1e12


def _samples_time(case: TrainingCase, found: Any, row: _Row) -> float:
    steps = math.ceil(SAMPLES / case.samples)
    return row.seconds(steps * float(found.step_s))


def _peak(case: TrainingCase, found: Any, row: _Row) -> float:
    return row.bytes(found.memory.total_bytes)


def _reserved(case: TrainingCase, found: Any, row: _Row) -> float:
    return row.bytes(found.memory.reserved_bytes)


def _per_device(case: TrainingCase, found: Any, row: _Row) -> float:
    """Bytes per device: torchtune reports allocated bytes, others the allocator's reserved bytes."""
    return _peak(case, found, row) if case.recipe == "torchtune" else _reserved(case, found, row)


def _steady(case: TrainingCase, found: Any, row: _Row) -> float:
    """Memory between steps, including tensors that a pipeline's schedule still references when the counter is read."""
    return row.bytes(found.memory.steady_bytes + _referred(case))


def _referred(case: TrainingCase) -> float:
    """Bytes that Megatron-LM's interleaved schedule references: each virtual stage's last input and output.

    Source: core/pipeline_parallel/schedules.py, input_tensors and output_tensors. Each counts twice the residual
    stream, as in its test of a 7B model.
    """
    virtual = getattr(case.parallelism, "virtual_stages", 1)
    if not case.last_stage or virtual == 1:
        return 0.0
    return 4.0 * virtual * case.batch * case.seq_len * case.model.hidden_size / float(case.parallelism.tp)


def _smi(case: TrainingCase, found: Any, row: _Row) -> float:
    return row.bytes(float(found.memory.reserved_bytes) + NVIDIA_SMI_MIB * 2.0**20)


def _states(case: TrainingCase, found: Any, row: _Row) -> float:
    memory = found.memory
    return row.bytes(memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes + memory.adapters_bytes)


def _activations(case: TrainingCase, found: Any, row: _Row) -> float:
    return row.bytes(found.memory.activations_bytes + found.memory.logits_bytes)


def _trained(case: TrainingCase, found: Any, row: _Row) -> float:
    return float(found.trainable_parameters)


def _did_not_run(case: TrainingCase, found: Any, row: _Row) -> float:
    return float(not np.all(found.memory.fits))


FIGURES: Mapping[str, Callable[[TrainingCase, Any, _Row], float]] = {
    "step_time": _step, "tokens_per_s_per_gpu": _per_gpu, "tokens_per_s": _tokens, "throughput": _samples, "mfu": _mfu,
    "model_tflops": _model_tflops, "train_time_1024_samples": _samples_time, "peak_memory_reserved": _reserved,
    "memory_nvidia_smi": _smi, "memory_allocated_after_step": _steady, "memory_allocated_steady": _steady,
    "memory_allocated_avg": _steady, "memory_params_grads_optimizer": _states, "memory_activations": _activations,
    "peak_memory_per_device": _per_device, "peak_memory": _peak, "max_memory_usage": _peak, "trainable": _trained,
    "did_not_run": _did_not_run,
}  # fmt: skip
"""Functions that predict a figure, by the beginning of its name; the first match applies."""

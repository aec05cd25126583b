"""Fitting a software stack to served rows: `python -m graphsim.calibration.stacks FILE.csv … hardware/served.json`.

Files are tables of served rows, and tables of tuned GEMMs (`graphsim.calibration.tuned_gemms`): the shares of the peak
that these say hold for dense layers while the rest is fitted.

For devices whose kernels were not measured one by one. A server under `concurrency` clients in a closed loop is near a
static batch of as many sequences: the mean time per output token is a decode step at the mean context, and the
prompts of the others, which interrupt it once for each of their answers,

    TPOT = step(clients, prompt + answer / 2) + (clients - 1) / answer · step of one prompt

with the lengths' mean, 0.9 of the nominal ones where they are drawn from 0.8 to 1. Of long prompts and few clients, the
median time to the first token says what a prompt takes: it waits for the running step, in addition to the server's own
time for a request. Per device and engine, the three constants of `graphsim.cost.stack` are those of a grid with the
least mean relative error, a model counting by the root of its rows, the start of a kernel by least squares in between.

Rows are InferenceMAX's (`hardware, framework, model, precision, tp, ep, concurrency, input_tokens, output_tokens,
mean_tpot_ms, median_ttft_ms`) or single public figures, `tpot_ms` of `measured_public.csv`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from graphsim.calibration.tuned_gemms import gemm_shares, is_tuned
from graphsim.cost.roofline import roofline
from graphsim.cost.stack import BASE_ENGINE, Stack, gemm_share, starts, wide_s
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row, above_zero, read_facts, whole
from graphsim.files.written import write_text
from graphsim.graph import walk
from graphsim.hardware import Hardware, device_described, load_hardware
from graphsim.models.loading import load_model
from graphsim.ops.precision import Precision, load_precision

if TYPE_CHECKING:
    import pandas as pd

ARCHITECTURES = ("cdna2", "cdna3", "cdna4")
"""Generations whose served rows are fitted; kernels of all others were measured."""

MOST_CLIENTS = 64
"""Clients up to which a closed loop is near a static batch."""

OWN_ENGINE = {"atom": BASE_ENGINE}
"""The engine that a framework's constants apply to: AMD's own for every engine that runs its kernels, except SGLang."""

LONG_PROMPT, ALONE = 4096, 16
"""Least prompt length and most clients for which the time to the first token is the prompt's."""

REQUEST_S, TOKEN_S = 12e-3, 3e-6
"""Server time per request, and per token of its prompt, outside its steps."""

MEAN_LENGTH = 0.9
SHARES_OF_BANDWIDTH = np.array([0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
SHARES_OF_PEAK = np.array([0.06, 0.07, 0.085, 0.1, 0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.4, 0.5, 0.6, 0.75, 0.9])
ROUNDS = 12
LEAST_ERROR = 0.02

ABOUT = (
    "Software stacks on devices whose kernels were not measured one by one: shares of the bandwidth and of the matrix "
    "peak in 16 bits that their kernels reach, and the start of each kernel in seconds, fitted to served models. "
    "'base' stands for every engine that is not listed; a device that is not listed takes those of its generation. "
    "gemms: shares of the peak of their own format that GEMMs of dense layers reach at least, by device and format."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """The operations of a step: seconds at the datasheet's rates, and kernels.

    wide_s: of GEMMs in 16 bits
    gemm_s: of those with a known share of their own peak, at that share, else infinite
    """

    wide_s: NDArray[np.float64]
    gemm_s: NDArray[np.float64]
    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]
    network_s: NDArray[np.float64]
    kernels: float

    def seconds(self, memory: float, compute: float) -> float:
        """Seconds at given shares of the bandwidth and of the peak, without kernel launches."""
        computing = np.maximum(self.compute_s, np.minimum(self.wide_s / compute, self.gemm_s))
        each = np.maximum(np.maximum(computing, self.memory_s / memory), self.network_s)
        return float(each.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackRow:
    """A measured time of a served row as sums of steps: its time per token or its time to the first one.

    metric: `tpot` or `ttft`
    steps, prompts: number of decode steps and of prompt steps in it
    """

    id: str
    device: str
    framework: str
    model: str
    metric: str
    measured_s: float
    step: Parts
    prompt: Parts
    steps: float
    prompts: float

    def figures(self, memory: float, compute: float) -> tuple[float, float]:
        """Seconds without kernel launches, and the number of launches."""
        seconds = self.steps * self.step.seconds(memory, compute) + self.prompts * self.prompt.seconds(memory, compute)
        return seconds, self.steps * self.step.kernels + self.prompts * self.prompt.kernels

    def predicted_s(self, stack: Stack) -> float:
        """Seconds."""
        seconds, kernels = self.figures(stack.memory, stack.compute)
        return seconds + kernels * stack.kernel_s


Gemms = Mapping[str, Mapping[str, float]]
"""By device and format, the share of their peak that GEMMs of dense layers reach."""


def stack_rows(frame: pd.DataFrame, gemms: Gemms = MappingProxyType({})) -> list[StackRow]:
    """The usable rows of a table: one server, no speculation, a device of ARCHITECTURES."""
    public = "hw" in frame.columns
    found = []
    for place, row in enumerate(frame.to_dict("records"), 1):
        told = _public(row) if public else _benchmark(row)
        if told is None:
            continue
        try:
            one = _row({"id": place} | told, gemms)
        except GraphsimError:
            continue
        found += one
    return found


def _benchmark(row: Row) -> dict[str, Any] | None:
    if str(row.get("disagg")).lower() == "true" or str(row.get("spec_decoding", "none")) != "none":
        return None
    if str(row.get("dp_attention")).lower() == "true":
        return None
    lengths = {name: MEAN_LENGTH * above_zero(row, name) for name in ("input_tokens", "output_tokens")}
    return {**row, **lengths}


def _public(row: Row) -> dict[str, Any] | None:
    if row["metric"] != "tpot_ms":
        return None
    words = str(row["source"]).lower()
    framework = next((name for name in ("sglang", "atom", "vllm") if name in words), "")
    return {
        "hardware": row["hw"], "framework": framework, "model": row["model"], "precision": row["precision"],
        "tp": row["tp"], "ep": row["tp"] if "EP" in str(row["note"]) else 1, "concurrency": row["batch"],
        "input_tokens": row["input"], "output_tokens": row["output"], "mean_tpot_ms": row["measured"],
    }  # fmt: skip


def _row(row: Row, gemms: Gemms) -> list[StackRow]:
    described = device_described(str(row["hardware"]))
    device = load_hardware(described.name if described else str(row["hardware"]))
    clients = whole(row, "concurrency")
    if device.architecture not in ARCHITECTURES or clients > MOST_CLIENTS:
        return []
    deployment, known = _deployment(row, device), tuple(gemms.get(device.name, {}).items())
    prompt, answer = (round(above_zero(row, name)) for name in ("input_tokens", "output_tokens"))
    tpot = StackRow(
        id=str(row["id"]), device=device.name, framework=str(row["framework"]), model=deployment.model.name,
        metric="tpot", measured_s=above_zero(row, "mean_tpot_ms") * 1e-3,
        step=_parts(deployment.decode(clients, round(prompt + answer / 2)), device, known),
        prompt=_parts(deployment.prefill(1, prompt), device, known), steps=1.0, prompts=(clients - 1.0) / answer,
    )  # fmt: skip
    if prompt < LONG_PROMPT or clients > ALONE or "median_ttft_ms" not in row:
        return [tpot]
    first_s = above_zero(row, "median_ttft_ms") * 1e-3 - REQUEST_S - TOKEN_S * prompt
    return [tpot, replace(tpot, metric="ttft", measured_s=first_s, prompts=1.0)]


def _deployment(row: Row, device: Hardware) -> Deployment:
    name, label = str(row["model"]), str(row["precision"])
    copied = name.upper().endswith("-MXFP4-PREVIEW")  # AMD's copies; attention stays in fp8
    model = load_model(name[: -len("-MXFP4-Preview")].replace("amd/", "deepseek-ai/") if copied else name)
    precision = load_precision("mxfp4,attention=fp8_block") if copied else _precision(label, model.precision)
    engine = "sglang" if row["framework"] == "sglang" else "vllm"
    degrees = Parallelism(tp=whole(row, "tp"), ep=whole(row, "ep"))
    return Deployment(
        model, device, parallelism=degrees, precision=precision, engine={"base": engine, "notes_only": True}
    )


def _precision(label: str, own: Precision | None) -> Precision:
    """As graphsim writes it, or the width that a benchmark states: for a checkpoint in that width, its own."""
    if label in ("fp4", "fp8"):
        return own if own is not None else load_precision("fp8_block" if label == "fp8" else "mxfp4")
    return load_precision(label)


def _parts(graph: nx.DiGraph, device: Hardware, gemms: Sequence[tuple[str, float]]) -> Parts:
    found, kernels = [], 0.0
    for _, op, times in walk(graph):
        if op.once:
            continue
        base = roofline(op, device)
        if base.launch_s > 0:
            kernels += float(starts(op)) * times
        share = gemm_share(op, gemms)
        own_s = base.compute_s / share if share else np.inf
        parts = (wide_s(op, device), own_s, base.compute_s, base.memory_s, base.network_s)
        found.append([float(part) * times for part in parts])
    wide, gemm_s, compute_s, memory_s, network_s = np.array(found).T
    return Parts(
        wide_s=wide, gemm_s=gemm_s, compute_s=compute_s, memory_s=memory_s, network_s=network_s, kernels=kernels
    )


def fit_stack(rows: Sequence[StackRow]) -> Stack:
    """The constants with the least mean relative error. Raises ConfigError without rows."""
    if not rows:
        raise ConfigError("served rows: no row is of a device whose constants are fitted")
    measured = np.array([row.measured_s for row in rows])
    models = [row.model for row in rows]
    counted = np.array([models.count(model) ** -0.5 for model in models])
    found = []
    for memory in SHARES_OF_BANDWIDTH:
        for compute in SHARES_OF_PEAK:
            seconds, kernels = np.array([row.figures(memory, compute) for row in rows]).T
            start_s = _start_s((measured - seconds) / measured, kernels / measured, counted)
            error = float(np.average(np.abs((seconds + start_s * kernels) / measured - 1.0), weights=counted))
            found.append((error, Stack(memory=float(memory), compute=float(compute), kernel_s=start_s)))
    return min(found, key=lambda entry: entry[0])[1]


def _start_s(rest: NDArray[np.float64], kernels: NDArray[np.float64], counted: NDArray[np.float64]) -> float:
    """The non-negative launch time of a kernel that explains the rest, weighted by the measured times."""
    weights, found = counted, 0.0
    for _ in range(ROUNDS):
        found = max(0.0, float(np.sum(weights * rest * kernels) / np.sum(weights * kernels**2)))
        weights = counted / np.maximum(np.abs(found * kernels - rest), LEAST_ERROR)
    return found


def errors(rows: Sequence[StackRow], stack: Stack) -> NDArray[np.float64]:
    """predicted / measured - 1 of the time per token."""
    return np.array([row.predicted_s(stack) / row.measured_s - 1.0 for row in rows])


def left_out_errors(rows: Sequence[StackRow]) -> dict[str, NDArray[np.float64]] | None:
    """The errors of each model's times per token with constants of the others; None with a single model."""
    models = {row.model for row in rows}
    if len(models) < 2:
        return None
    found = {}
    for model in sorted(models):
        fitted = fit_stack([row for row in rows if row.model != model])
        found[model] = errors([row for row in rows if row.model == model and row.metric == "tpot"], fitted)
    return found


def stacks_of(rows: Sequence[StackRow]) -> dict[str, dict[str, list[StackRow]]]:
    """Rows by device and engine; the base of a device without its own stack uses all of its rows."""
    found: dict[str, dict[str, list[StackRow]]] = {}
    for row in rows:
        engines = found.setdefault(row.device, {})
        engines.setdefault(OWN_ENGINE.get(row.framework, row.framework), []).append(row)
    for device, engines in found.items():
        if BASE_ENGINE not in engines:
            engines[BASE_ENGINE] = [row for row in rows if row.device == device]
    return found


def contents(rows: Sequence[StackRow], source: str, gemms: Gemms = MappingProxyType({})) -> dict[str, Any]:
    """The contents of `hardware/served.json` for some rows.

    source: their origin, in a few words
    """
    devices: dict[str, dict[str, Any]] = {}
    facts: dict[str, Any] = {}
    for device, engines in sorted(stacks_of(rows).items()):
        for engine, own in sorted(engines.items()):
            stack, out = fit_stack(own), left_out_errors(own)
            devices.setdefault(device, {})[engine] = {
                "memory": stack.memory, "compute": stack.compute, "kernel_s": float(f"{stack.kernel_s:.3g}")
            }  # fmt: skip
            facts[f"{device} {engine}"] = {
                "figures": len(own), "frameworks": sorted({row.framework for row in own}),
                "models": sorted({row.model for row in own}),
                "median_error": {
                    metric: _median(errors([row for row in own if row.metric == metric], stack))
                    for metric in sorted({row.metric for row in own})
                },
                "left_out_models_median_error": out and {name: _median(one) for name, one in out.items()},
            }  # fmt: skip
    return {"about": ABOUT, "provenance": {"source": source, **facts}, "gemms": gemms, "devices": devices}


def _median(values: NDArray[np.float64]) -> float:
    return round(float(np.median(np.abs(values))), 3)


def _devices(frames: Sequence[pd.DataFrame]) -> set[str]:
    """Devices of ARCHITECTURES in tables of served rows."""
    columns = [frame[name] for frame in frames for name in ("hardware", "hw") if name in frame.columns]
    described = [device_described(str(text)) for column in columns for text in column.dropna().unique()]
    names = {one.name for one in described if one is not None}
    return {name for name in names if load_hardware(name).architecture in ARCHITECTURES}


def main(arguments: Sequence[str]) -> Iterator[str]:
    """Fit files, write the constants, and return the lines to print."""
    if len(arguments) < 2:
        raise ConfigError("usage: python -m graphsim.calibration.stacks FILE.csv … SERVED.json")
    *paths, to = arguments
    frames = [read_facts(path, "served rows") for path in paths]
    tuned, served = ([frame for frame in frames if is_tuned(frame) == wanted] for wanted in (True, False))
    gemms = gemm_shares(tuned, _devices(served))
    rows = [row for frame in served for row in stack_rows(frame, gemms)]
    found: Mapping[str, Any] = contents(rows, ", ".join(Path(path).name for path in paths), gemms)
    write_text(to, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for device, engines in found["devices"].items():
        for engine, constants in engines.items():
            yield f"{device} {engine}: {constants} {found['provenance'][f'{device} {engine}']}"


if __name__ == "__main__":
    try:
        for line in main(sys.argv[1:]):
            sys.stdout.write(line + "\n")
    except GraphsimError as error:
        sys.exit(str(error))

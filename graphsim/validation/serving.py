"""Measured serving against the estimate: time to first token and per token of a server under closed-loop load.

`concurrency` clients each send their next request when the last one is answered, so the server always holds that many.
Lengths are those of the benchmark's random prompts: uniform from `range_ratio` of the stated length to all of it, so
its mean is (1 + range_ratio) / 2 of what the columns say. Every client sends `requests_per_client` requests, the
first all at once: each of these waits for the prompts before it, half of the others' on average. Later ones come
one by one, as their predecessors were served one by one. With P the prefill of one prompt (its kernels, or the host
that launches them) and two estimates, one of all requests together and one of a single prompt:

    TPOT = decode step of the full batch + (concurrency - 1) · P / output tokens
    TTFT = P · (1 + (concurrency - 1) / 2 / requests_per_client) + one decode step + first use / requests_per_client

since every other request starts once while this one generates, and a request arrives while a step runs that it must
wait for. Experts are spread over no more devices than there are. How the servers were run and what their engine adds
to the kernels is in `servers.py`, with its sources.

Where a file does not say otherwise, the protocol is InferenceX's: range_ratio 0.8, ten requests per client, all
sent at once (its README and `benchmarks/benchmark_lib.sh`; lengths as in `sample_random_requests` of
github.com/kimbochen/bench_serving, which it runs). Tokeniser and HTTP are not modelled (no time is added for
them); what remains of the error holds them too. A server with fewer places than clients is not modelled either.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.display.breakdown import seconds_by_type
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import measured, number, read_facts
from graphsim.hardware import load_hardware
from graphsim.models.config import ModelConfig
from graphsim.models.loading import load_model
from graphsim.ops.formats import FORMATS
from graphsim.ops.precision import Precision, load_precision
from graphsim.simulation import simulate
from graphsim.validation.servers import Server, server_of
from graphsim.validation.validate import hardware_name

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("hardware", "model", "precision", "concurrency", "input_tokens", "output_tokens", "ttft_ms", "tpot_ms")
"""Columns that a file of measured serving needs; `tp`, `pp`, `moe_ep` and `attention_dp` are 1 where absent."""

PROTOCOL = {"range_ratio": 0.8, "requests_per_client": 10.0}
"""How the benchmark asks, where a file has no columns of these names."""

PRECISIONS = {"fp4": "mxfp4", "fp16": "bf16"}
"""Weight formats whose name in the measurements is not the catalog's."""


def validate_serving(frame: pd.DataFrame, cost: str | None = None) -> pd.DataFrame:
    """Each row with predicted `ttft_ms` and `tpot_ms`, their errors as fractions, and the reason where there is none.

    Raises ConfigError for missing columns; a row whose model or device is not known says so in `problem`.
    """
    import pandas as pd

    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ConfigError(f"column {', '.join(missing)} missing; measured serving needs {', '.join(COLUMNS)}")
    frame = measured(frame, ("ttft_ms", "tpot_ms"))
    lines = []
    for row in frame.to_dict("records"):
        try:
            found = {**_predict(row, cost), "problem": ""}
        except GraphsimError as error:
            found = {"ttft_predicted_ms": np.nan, "tpot_predicted_ms": np.nan, "cost_model": "", "problem": str(error)}
        lines.append(row | found)
    table = pd.DataFrame(lines, index=frame.index)
    for name in ("ttft", "tpot"):
        table[f"{name}_error"] = table[f"{name}_predicted_ms"] / table[f"{name}_ms"] - 1.0
    return table


def validate_serving_file(path: str | Path, cost: str | None = None) -> pd.DataFrame:
    """`validate_serving` of a CSV file. Raises ConfigError if it cannot be read."""
    frame = read_facts(path, "measured serving")
    try:
        return validate_serving(frame, cost)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute error and bias of both times per device, model and concurrency."""
    import pandas as pd

    known = table[table["problem"] == ""]
    keys, errors = ["hardware", "model", "concurrency"], ["tpot_error", "ttft_error"]
    biases = known.groupby(keys)[errors].median()
    biases.columns = pd.Index(["tpot_bias", "ttft_bias"])
    sizes = known[keys].join(known[errors].abs())
    return sizes.groupby(keys)[errors].median().join(biases).reset_index()


def _predict(row: dict[Any, Any], cost: str | None) -> dict[str, Any]:
    clients, outputs, prompt = (
        _number(row, "concurrency"), _mean_length(row, "output_tokens"), _mean_length(row, "input_tokens")
    )  # fmt: skip
    model, hardware = (
        load_model(str(row["model"]).rsplit("/", 1)[-1].lower()), load_hardware(hardware_name(str(row["hardware"])))
    )  # fmt: skip
    server = server_of(model.name, hardware)
    tensor, replicas = _number(row, "tp"), _number(row, "attention_dp") if server.data_parallel else 1.0
    asked: dict[str, Any] = {
        "model": model,
        "hardware": hardware,
        "input_tokens": prompt,
        "output_tokens": outputs,
        "parallelism": Parallelism(
            tp=int(tensor), pp=int(_number(row, "pp")), ep=int(min(_number(row, "moe_ep"), tensor * replicas)),
            dp=int(replicas),
        ),
        "precision": _precision(str(row["precision"]), model, server),
        "cost": cost,
    }  # fmt: skip
    together = simulate(batch=int(clients), **asked)
    step_s = server.step_s(float(together.tpot_s), seconds_by_type(together.decode.graph), tensor)
    prefill_s = server.prefill_s(float(simulate(batch=1, **asked).ttft_s), model.num_layers, prompt)
    rounds = _number(row, "requests_per_client", PROTOCOL["requests_per_client"])
    waits_s = (0.5 * (clients - 1.0) * prefill_s + server.first_use_s) / rounds
    return {
        "ttft_predicted_ms": 1e3 * (prefill_s + step_s + waits_s),
        "tpot_predicted_ms": 1e3 * (step_s + (clients - 1.0) / outputs * prefill_s),
        "cost_model": together.cost_model,
    }


def _precision(name: str, model: ModelConfig, server: Server) -> Precision:
    """The format of that width; of a checkpoint published in such a format, its own (as fp8 scaled by blocks)."""
    own, format_name = model.precision, PRECISIONS.get(name, name)
    narrow = () if own is None else tuple(form.name for form in own.of_weights if form.bytes < 2.0)
    if own is None or not any(form.startswith(format_name) for form in narrow):
        own = load_precision(format_name)
    return replace(
        own, kv=FORMATS[server.kv] if server.kv else own.kv,
        experts=FORMATS[server.experts] if server.experts else own.experts,
    )  # fmt: skip


def _number(row: dict[Any, Any], name: str, absent: float = 1.0) -> float:
    value = row.get(name, absent)
    return absent if value is None or value != value else number({name: value}, name)


def _mean_length(row: dict[Any, Any], name: str) -> int:
    """Mean of lengths uniform from a part of the stated one to all of it."""
    part = _number(row, "range_ratio", PROTOCOL["range_ratio"])
    return max(1, round(0.5 * (1.0 + part) * _number(row, name)))

"""The functions of the LoRA document: its code snippets run unchanged except for the import line.

`create_full_prefill_model` and `create_full_decode_model` write a readable operator table as CSV;
`estimate_end_to_end_performance` returns milliseconds and tokens per second in a dictionary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx

from graphsim.deployment.deployment import REFERENCE, HardwareRef, ModelRef
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import MOST
from graphsim.display.operators import frame_of
from graphsim.errors import ConfigError
from graphsim.files.present import path_of, shown
from graphsim.files.written import write_text
from graphsim.lora.config import LoraConfig
from graphsim.models.loading import get_configs
from graphsim.simulation import build_graph, simulate
from graphsim.units import checked_number


def create_full_prefill_model(
    name: ModelRef = "llama-2-7b",
    input_sequence_length: int = 512,
    data_path: str | Path = ".",
    batch_size: int = 1,
    tensor_parallel: int = 1,
) -> str:
    """Write the operator table of the prompt step to a CSV file in `data_path` and return its path.

    Raises ConfigError for an argument that is not allowed or a folder that cannot be written to.
    """
    config, tokens = get_configs(name), _one("input_sequence_length", input_sequence_length)
    batch, parallelism = _one("batch_size", batch_size), Parallelism(tp=tensor_parallel)
    graph = build_graph(config, "prefill", batch, tokens, parallelism=parallelism)
    return _write(graph, data_path, f"{config.name}_prefill_{tokens}.csv")


def create_full_decode_model(
    name: ModelRef = "llama-2-7b",
    input_sequence_length: int = 512,
    data_path: str | Path = ".",
    output_gen_tokens: int = 0,
    batch_size: int = 1,
    tensor_parallel: int = 1,
) -> str:
    """Write the table of one decode step, `output_gen_tokens` tokens after the prompt, and return its path.

    Raises the same errors as `create_full_prefill_model`.
    """
    config, tokens = get_configs(name), _one("input_sequence_length", input_sequence_length)
    context = tokens + _one("output_gen_tokens", output_gen_tokens, 0)
    batch, parallelism = _one("batch_size", batch_size), Parallelism(tp=tensor_parallel)
    graph = build_graph(config, "decode", batch, context_tokens=context, parallelism=parallelism)
    return _write(graph, data_path, f"{config.name}_decode_{context}.csv")


def _one(name: str, value: Any, least: int = 1) -> int:
    """A single whole number: a table describes one scenario. Raises ConfigError for anything else."""
    return int(checked_number(name, value, least, MOST, one=True))


def _write(graph: nx.DiGraph, data_path: str | Path, name: str) -> str:
    folder = path_of(data_path, "data_path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_path = '{shown(folder)}' cannot be written to ({error.strerror})") from None
    return str(write_text(folder / name, frame_of(graph).to_csv(index=False)))


def estimate_end_to_end_performance(
    model: ModelRef = "llama-2-7b",
    batch_size: int = 1,
    input_tokens: int = 512,
    output_tokens: int = 128,
    system_name: HardwareRef = "h100-sxm",
    bits: str = "bf16",
    tensor_parallel: int = 1,
    lora: LoraConfig | None = None,
) -> dict[str, Any]:
    """`ttft` and `average_tpot` in milliseconds, `total_throughput` in tokens per second, and the figures behind them.

    lora: the adapter; by default the model's `lora_config`. Raises the same errors as `simulate`.
    """
    estimate = simulate(
        get_configs(model),
        system_name,
        batch_size,
        input_tokens,
        output_tokens,
        parallelism=Parallelism(tp=tensor_parallel),
        lora=lora,
        precision=bits,
        engine=REFERENCE,
    )
    return {
        "ttft": estimate.ttft_s * 1e3,
        "average_tpot": estimate.tpot_s * 1e3,
        "total_throughput": estimate.tokens_per_s,
        "total_latency": estimate.latency_s * 1e3,
        "one_time": estimate.one_time_s * 1e3,
        "memory_bytes": estimate.memory.total_bytes,
        "fits": estimate.memory.fits,
        "engine": estimate.engine,
        "notes": list(estimate.notes),
    }

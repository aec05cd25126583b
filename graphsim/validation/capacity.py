"""KV capacity logged by engines compared with the footprint: `graphsim validate capacity`.

A log states how many tokens, blocks or bytes were left for the KV cache; the engine's settings (share of the memory,
tokens and sequences of a step) are in the same row, and the engine's version determines the profile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.analysis.slots import footprint
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.measured import Row, above_zero, each, number, read_facts, whole
from graphsim.lora.config import LoraConfig

if TYPE_CHECKING:
    import pandas as pd

GIB = 2.0**30
BLOCK_TOKENS = 16
"""Tokens per block if a log counts blocks (vLLM's default)."""

COUNTING_CONTEXT = {"runtime_bytes": "0.74 GiB", "group_bytes": "1.35 GiB"}
"""vLLM 0.8 and 0.9 count the CUDA context and the process group's memory at startup, as in profile `vllm-0.8`."""

VERSIONS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("issue 9802", "vllm-0.7", {"sequences": 512}),  # 0.6, --max-num-seqs 512
    ("issue 13061", "vllm-0.7", {}),  # 0.7.2
    # January 2025; only V1 leaves so little: 0.7.0 computes logits of all tokens of its profiled step
    ("PR 12569", "vllm-0.8", {"large_sequences": 8192}),
    ("issue 21348", "vllm-0.11", COUNTING_CONTEXT),  # July 2025: 0.9, whose profiled step includes sampling
    ("issue 23278", "vllm-0.11", {}),  # 0.10
    ("issue 27508", "vllm-0.11", {}),  # 0.11
    ("vLLM 0.30", "vllm", {}),
    ("vllm 0.15", "vllm-0.11", {}),
    ("vllm 0.19", "vllm-0.11", {}),
    ("vllm 2025-05", "vllm-0.8", {}),
)
"""Profile, and settings that the row does not state, by words of a source or framework."""

R1_DISTILL_QWEN_14B = {
    "model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
    "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "max_position_embeddings": 131072,
}  # fmt: skip
QWEN3_235B_A22B = {
    "model_type": "qwen3_moe", "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "num_hidden_layers": 94, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960, "norm_topk_prob": True,
}  # fmt: skip
MODELS: Mapping[str, Any] = {
    "qwen2": R1_DISTILL_QWEN_14B, "qwen3_moe": QWEN3_235B_A22B, "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-3.1-8B": "llama-3.1-8b", "meta-llama/Llama-3.1-70B-Instruct": "llama-3.1-70b",
}  # fmt: skip
"""Models whose names in the files differ from the catalog's; the first two as in their published config.json."""

DEVICES = {"H100 SXM 80GB": "h100-sxm", "RTX4090": "rtx-4090"}
SLOTS_DEVICE = "h100-64gb"

PUBLIC = ("metric", "measured", "source", "model", "hw", "tp", "precision", "note")
RUNS = ("hardware", "framework", "model", "tp", "max_num_seqs", "max_num_batched_tokens", "source")
SLOTS = ("model", "framework", "max_loras", "max_lora_rank", "kv_cache_tokens")
BLOCKS = ("kv_blocks", "num_gpu_blocks")
COUNTED = ("source", "model", "device")


def validate_capacity(path: str | Path) -> pd.DataFrame:
    """Each logged capacity of a file with prediction and error; runs that differ only in their load count once.

    The file has public figures, serving runs with their blocks, or adapter slots with the remaining tokens.
    Raises ConfigError for a file that cannot be read or has none of these.
    """
    frame = read_facts(path, "logged capacity")
    kinds = (
        ("metric", PUBLIC, capacity_of),
        *((name, RUNS, _run) for name in BLOCKS),
        ("kv_cache_tokens", SLOTS, _slots),
    )
    for column, needed, figures in kinds:
        if column in frame.columns:
            frame = read_facts(path, "logged capacity", needed)
            return each(frame, path, figures).drop_duplicates(ignore_index=True)
    raise ConfigError(f"{path}: holds no logged capacity; expected one of the columns metric, {', '.join(BLOCKS)} or …")


def once_each(table: pd.DataFrame) -> pd.DataFrame:
    """The median absolute error of each source, model and device, regardless of its number of rows."""
    sizes = table.assign(error=table["error"].abs())
    return sizes.groupby(list(COUNTED), sort=False)["error"].median().reset_index()


def capacity_of(row: Row) -> dict[str, Any] | None:
    """Predicted capacity of a public figure, in tokens or GiB; its metric states settings such as `util=0.95`."""
    metric = str(row["metric"])
    if not metric.startswith(("kv_tokens", "kv_avail_GiB")):
        return None
    told = dict(re.findall(r"(\w+)=([\d.]+)", metric))
    memory: dict[str, Any] = {"share": float(told.get("util", 0.9))}
    if "max_num_batched_tokens" in told:
        memory |= {"chunk_tokens": told["max_num_batched_tokens"], "large_chunk_tokens": told["max_num_batched_tokens"]}
    setting = {"model": str(row["model"]), "device": str(row["hw"]), "tp": whole(row, "tp")}
    found = _footprint(row, str(row["source"]), memory, str(row["precision"]), setting)
    if metric.startswith("kv_tokens"):
        return found | _judged(number(row, "measured"), "tokens", float(found.pop("footprint").kv_tokens))
    # gpt-oss's experts take more memory in vLLM than in its files (60.8 GiB), so weights are those of the log
    logged = re.search(r"weights ([\d.]+) ", str(row["note"]))
    left = found.pop("footprint")
    weights = 0.0 if logged is None else float(left.weights_bytes) / GIB - float(logged.group(1))
    return found | _judged(number(row, "measured"), "GiB", float(left.kv_bytes) / GIB + weights)


def _run(row: Row) -> dict[str, Any] | None:
    """Predicted capacity of a serving run that states its number of blocks."""
    column = next(name for name in BLOCKS if name in row)
    if row[column] != row[column]:
        return None
    tokens, sequences = whole(row, "max_num_batched_tokens"), whole(row, "max_num_seqs")
    memory = {
        "chunk_tokens": tokens, "large_chunk_tokens": tokens, "sequences": sequences, "large_sequences": sequences,
    }  # fmt: skip
    device = DEVICES.get(str(row["hardware"]))
    if device is None:
        raise ConfigError(f"hardware = {row['hardware']!r} is not known; allowed: {', '.join(DEVICES)}")
    setting = {"model": str(row["model"]), "device": device, "tp": whole(row, "tp")}
    found = _footprint(row, str(row["framework"]), memory, None, setting)
    predicted = float(found.pop("footprint").kv_tokens)
    return found | _judged(above_zero(row, column) * BLOCK_TOKENS, "tokens", predicted)


def _slots(row: Row) -> dict[str, Any] | None:
    """Predicted KV tokens that remain next to adapter slots."""
    if row["kv_cache_tokens"] != row["kv_cache_tokens"]:
        return None
    rank = whole(row, "max_lora_rank")
    lora = LoraConfig(rank=rank, target_modules="all-linear", max_loras=whole(row, "max_loras"), max_lora_rank=rank)
    setting = {"model": str(row["model"]), "device": SLOTS_DEVICE, "tp": 1}
    found = _footprint(row, str(row["framework"]), {}, None, setting, lora)
    predicted = float(found.pop("footprint").kv_tokens)
    return found | _judged(above_zero(row, "kv_cache_tokens"), "tokens", predicted)


def _footprint(
    row: Row,
    version: str,
    memory: Mapping[str, Any],
    precision: str | None,
    setting: dict[str, Any],
    lora: LoraConfig | None = None,
) -> dict[str, Any]:
    """The deployment of a row and its memory footprint."""
    for words, base, told in VERSIONS:
        if words in version:
            engine = {"base": base, "memory": {**memory, **told}}
            break
    else:
        raise ConfigError(f"no profile is known for {version!r}; known: {', '.join(words for words, *_ in VERSIONS)}")
    found = footprint(
        MODELS.get(setting["model"], setting["model"]), setting["device"], lora, engine=engine,
        parallelism=Parallelism(tp=setting["tp"]), precision=precision,
    )  # fmt: skip
    source = re.split(r"[/(,@]", str(row.get("source", version)))[0].strip()
    return {"source": source, **setting, "engine": base, "footprint": found}


def _judged(logged: float, unit: str, predicted: float) -> dict[str, Any]:
    error = (predicted - logged) / np.abs(logged)
    return {"unit": unit, "logged": logged, "predicted": predicted, "error": float(error)}

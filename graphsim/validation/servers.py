"""Start-up settings of the measured servers that their rows do not state.

These are the cache's format, the quantised modules of a checkpoint, and settings of the engine that differ from its
defaults. InferenceX's scripts are in its repository (github.com/SemiAnalysisAI/InferenceX,
`benchmarks/single_node/*.sh`, March 2026); the engines' defaults are in their profiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.graph import walk
from graphsim.hardware import Hardware
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import decode
from graphsim.ops import OpType
from graphsim.ops.formats import FORMATS
from graphsim.ops.precision import Precision, load_precision
from graphsim.validation.served_rows import ServedRow

FP4_ATTENTION = {"deepseek": "bf16", "kimi-k2": "bf16", "qwen3.5": "fp8_block"}
"""Format of attention projections in nvfp4 checkpoints (github.com/NVIDIA/Model-Optimizer, issue 150)."""

DELTA_NET_PROJECTIONS = ("in_proj_a", "in_proj_b")
"""Projections of gated delta-nets that are too narrow for blocks of 128; Qwen publishes them in bf16."""

OWN_CACHE = ("gpt-oss", "minimax", "kimi")
"""Models whose scripts set no cache format."""

FORMAT_NAMES = {"fp16": "bf16", "bfloat16": "bf16", "int4_wo": "int4"}
"""Weight formats whose name in the measurements differs from the catalog's."""

ENGINE_PROFILES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "trtllm", "trtllm-engine": "trtllm-engine",
                   "atom": "vllm"}  # fmt: skip
"""Profiles of engine families. AMD's ATOM has vLLM's scheduling."""

VERSIONS = {
    "vllm": (((0, 0), "vllm-0.11"), ((0, 14), "vllm-0.15"), ((0, 21), "vllm")),
    "sglang": (((0, 0), "sglang-0.5.9"), ((0, 5, 10), "sglang")),
}
"""Profiles by their first version; rows without a version, which are of 2025, use the first."""

FUSED_BY_SCRIPT = "llama-3.1-70b", "blackwell"
"""Rows whose scripts set vLLM's `enable_fi_allreduce_fusion` before it was the default: `70b_fp8_b200_docker.sh`."""

CHUNK_TOKENS = {"vllm": 8192.0, "sglang": 32768.0, "trtllm": 8192.0, "trtllm-engine": 8192.0, "atom": 16384.0}
"""Default token budget of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The settings of a start-up script.

    precision: formats of the checkpoint and the cache
    chunk_tokens: token budget of a step
    engine: name of the profile
    settings: settings of the engine's host that differ from its defaults
    """

    precision: Precision
    engine: str
    chunk_tokens: float
    settings: Mapping[str, Any] = field(default_factory=dict)


def server_of(row: ServedRow, model: ModelConfig, hardware: Hardware) -> Server:
    """The server of a row."""
    return Server(
        precision=_precision(row, model, hardware), engine=_profile(row, model, hardware),
        chunk_tokens=_chunk(row), settings=_settings(row, model, hardware),
    )  # fmt: skip


def _profile(row: ServedRow, model: ModelConfig, hardware: Hardware) -> str:
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", row.version)[:3]) or (0, 0)
    found = [name for least, name in VERSIONS.get(row.engine, ()) if numbers >= least]
    name, architecture = FUSED_BY_SCRIPT
    scripted = row.engine == "vllm" and not row.version
    if scripted and model.name.startswith(name) and hardware.architecture == architecture:
        return ENGINE_PROFILES[row.engine]
    return found[-1] if found else ENGINE_PROFILES[row.engine]


def _chunk(row: ServedRow) -> float:
    """Token budget of a step.

    SGLang: `--chunked-prefill-size` 16384 with nvfp4, else 32768; TensorRT-LLM: `max_num_tokens` by the lengths.
    """
    if row.engine == "trtllm":
        return max(CHUNK_TOKENS["trtllm"], (row.clients + row.input_tokens + 127) // 64 * 64)
    if row.engine == "sglang" and row.precision == "fp4":
        return 16384.0
    return CHUNK_TOKENS[row.engine]


def _settings(row: ServedRow, model: ModelConfig, hardware: Hardware) -> dict[str, Any]:
    """Settings of the engine's host.

    SGLang on Blackwell: `--scheduler-recv-interval` 30 from 16 clients on, 10 below. TensorRT-LLM:
    `batch_wait_timeout_iters` and `batch_wait_max_tokens_ratio` with two models at 1,024 tokens each way. vLLM:
    gpt-oss with `max-cudagraph-capture-size` 2048, Llama on Blackwell with `cudagraph_mode: FULL_DECODE_ONLY`.
    """
    if row.engine == "sglang" and hardware.architecture == "blackwell":
        return {"receive_steps": 30 if row.clients >= 16 else 10}
    if row.engine == "trtllm" and row.input_tokens == row.output_tokens == 1024:
        if model.name.startswith("llama-3.1-70b") and row.pool.tp < 8:
            return {"batch_wait_steps": 20, "batch_wait_share": 0.9}
        if model.name.startswith("deepseek") and row.clients >= 64:
            return {"batch_wait_steps": 40, "batch_wait_share": 0.8}
    if row.engine == "vllm" and model.name.startswith("gpt-oss"):
        return {"captured_prompt_tokens": 2048}
    if row.engine == "vllm" and model.name.startswith("llama-3.1-70b") and hardware.architecture == "blackwell":
        return {"captured_prompt_tokens": 0}
    return {}


def _precision(row: ServedRow, model: ModelConfig, hardware: Hardware) -> Precision:
    """The formats of the checkpoint that a label means, with the cache's."""
    if row.as_written:
        own = model.precision or load_precision("bf16")
        return own if row.precision == "checkpoint" else load_precision(row.precision)
    found = _weights(row, model)
    if model.name.startswith("gpt-oss") and hardware.architecture == "hopper" and row.engine == "vllm":
        # gptoss_fp4_h100.sh: VLLM_MXFP4_USE_MARLIN=1, whose kernels the measurements list under int4
        found = replace(found, experts=FORMATS["int4"])
    cache = _cache(row, model, hardware)
    return replace(found, kv=FORMATS[cache]) if cache else found


def _weights(row: ServedRow, model: ModelConfig) -> Precision:
    """Weight formats: those of the published checkpoint if it has that width, otherwise of the usual copies."""
    own, label = model.precision, FORMAT_NAMES.get(row.precision, row.precision)
    narrow = () if own is None else tuple(form.name for form in own.of_weights if form.bytes < 2.0)
    width = label.removeprefix("nv").removeprefix("mx")[:3]
    if own is not None and any(form.removeprefix("nv").removeprefix("mx").startswith(width) for form in narrow):
        return own
    if own is not None and "mxfp4" in narrow:  # labelled fp8 or nvfp4, published in mxfp4
        return own
    if label == "fp4":
        kind = "mxfp4" if "mxfp4" in row.model.lower() else "nvfp4"
        attention = next((form for start, form in FP4_ATTENTION.items() if model.name.startswith(start)), kind)
        return load_precision(_with_narrow(f"{kind},attention={attention}", model))
    if label == "fp8" and _has_experts(model):
        return load_precision(_with_narrow("fp8_block", model))
    return load_precision(label)


def _has_experts(model: ModelConfig) -> bool:
    graph = build(model, decode(1.0, 1.0), load_precision("bf16"))
    return any(op.op_type is OpType.EXPERTS for _, op, _ in walk(graph))


def _with_narrow(precision: str, model: ModelConfig) -> str:
    """A block-quantised precision, with modules that are too narrow for the blocks in bf16."""
    if not model.name.startswith("qwen3.5"):
        return precision
    path = "model.language_model.layers.{}.linear_attn"
    return ",".join([precision, *(f"{path}.{name}=bf16" for name in DELTA_NET_PROJECTIONS)])


def _cache(row: ServedRow, model: ModelConfig, hardware: Hardware) -> str:
    """`--kv-cache-dtype`, or `kv_cache_config`: fp8 if the scripts set it, "" for the checkpoint's own.

    For disaggregated prefill on AMD devices the source is github.com/billishyahao/sglang_disagg, server.sh, which
    InferenceX's `dsr1_fp8_mi355x_sglang-disagg.sh` runs.
    """
    if model.name.startswith(OWN_CACHE) or row.judged == "other protocol" or row.precision == "bf16":
        return ""
    if row.engine == "sglang":
        apart = row.prompts is not None and hardware.architecture.startswith("cdna")
        return "fp8" if apart or hardware.architecture == "blackwell" else ""
    if row.engine == "vllm":
        return "fp8" if model.name.startswith("llama") else ""
    return "fp8" if row.engine == "trtllm" else ""

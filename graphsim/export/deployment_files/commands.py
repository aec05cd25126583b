"""Start-up commands of engines, as lists of arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from graphsim.deployment.context import cache_ranks
from graphsim.deployment.cutting import has_experts
from graphsim.errors import ConfigError
from graphsim.export.deployment_files.described import Launch
from graphsim.export.deployment_files.flags import TRTLLM_CONFIG
from graphsim.serving.engine_flags import OF_ENGINES, OWN
from graphsim.speculation.speculation import MTP, NGRAM
from graphsim.units import amount_text

LOOKUP_TOKENS = 4
"""Largest n-gram, in tokens, that an n-gram draft looks up; engines require a value."""

Config = dict[str, Any]


def command_of(launch: Launch) -> tuple[list[str], Config]:
    """The arguments of a server's command, and the contents of its configuration file; {} if it needs none."""
    return _WRITERS[launch.engine](launch)


def _vllm(launch: Launch) -> tuple[list[str], Config]:
    found = ["vllm", "serve", launch.model, "--host", launch.host, "--port", str(launch.port)]
    found += _sized("--tensor-parallel-size", launch.tp) + _sized("--pipeline-parallel-size", launch.pp)
    found += _vllm_context(launch) + _sized("--data-parallel-size", launch.attention_replicas)
    found += ["--enable-expert-parallel"] if launch.expert_parallel else []
    found += ["--quantization", "fp8"] if launch.online else []
    found += ["--kv-cache-dtype", "fp8"] if launch.deployment.precision.kv.name == "fp8" else []
    if (lora := launch.lora) is not None:
        found += ["--enable-lora", "--max-loras", str(launch.slots), "--max-lora-rank", str(_vllm_rank(launch.rank))]
        found += ["--fully-sharded-loras"] if lora.fully_sharded_loras else []
        found += _modules("--lora-modules", launch.adapters)
    if launch.drafted:
        found += ["--speculative-config", json.dumps(_vllm_speculation(launch))]
    return found + _limits(launch, "-"), {}


def _vllm_context(launch: Launch) -> list[str]:
    """Flags of context parallelism: ranks that split prompts, and ranks that split the cache (all of them or none)."""
    deployment, cp = launch.deployment, launch.cp
    ranks = int(cache_ranks(deployment.model, deployment.engine, deployment.parallelism))
    return _sized("--prefill-context-parallel-size", cp) + _sized("--decode-context-parallel-size", ranks)


VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that `--max-lora-rank` accepts (vLLM 0.33, vllm/config/lora.py, MaxLoRARanks)."""


def _vllm_rank(rank: int) -> int:
    fitting = [each for each in VLLM_RANKS if each >= rank]
    if not fitting:
        raise ConfigError(f"lora.rank = {rank} is more than vLLM serves; expected up to {amount_text(VLLM_RANKS[-1])}")
    return fitting[0]


def _vllm_speculation(launch: Launch) -> Config:
    found: Config = {"num_speculative_tokens": launch.drafted}
    method = _method(launch)
    if method == NGRAM:
        return {"method": NGRAM, **found, "prompt_lookup_max": LOOKUP_TOKENS}
    if method == MTP:
        return {"method": MTP, **found}
    found = {"method": "draft_model" if method == "model" else method, "model": launch.draft, **found}
    return found | ({"draft_tensor_parallel_size": launch.draft_tp} if launch.draft_tp else {})


def _sglang(launch: Launch) -> tuple[list[str], Config]:
    spread = launch.tp * launch.attention_replicas
    found = ["python", "-m", "sglang.launch_server", "--model-path", launch.model]
    found += ["--host", launch.host, "--port", str(launch.port)]
    found += _sized("--tp-size", spread * launch.cp) + _sized("--pp-size", launch.pp) + _sglang_context(launch)
    if launch.attention_replicas > 1:
        found += ["--dp-size", str(launch.attention_replicas), "--enable-dp-attention"]
    found += ["--ep-size", str(spread)] if launch.expert_parallel else []
    found += ["--quantization", "fp8"] if launch.online else []
    found += ["--kv-cache-dtype", "fp8_e4m3"] if launch.deployment.precision.kv.name == "fp8" else []
    if launch.lora is not None:
        found += ["--enable-lora", "--max-loras-per-batch", str(launch.slots), "--max-lora-rank", str(launch.rank)]
        found += _modules("--lora-paths", launch.adapters) or ["--lora-target-modules", "all"]
    if launch.drafted:
        found += _sglang_speculation(launch)
    return found + _limits(launch, "-"), {}


def _sglang_context(launch: Launch) -> list[str]:
    """Flags of context parallelism: ranks are part of `--tp-size`, and each holds all experts on its tensor ranks."""
    if launch.cp == 1:
        return []
    experts = ["--moe-dp-size", str(launch.cp)] if has_experts(launch.deployment.model) else []
    return ["--attn-cp-size", str(launch.cp), "--enable-prefill-cp", "--cp-strategy", "zigzag", *experts]


_SGLANG_METHODS = {NGRAM: "NGRAM", MTP: "NEXTN", "model": "STANDALONE", "eagle": "EAGLE", "eagle3": "EAGLE3"}


def _sglang_speculation(launch: Launch) -> list[str]:
    """Flags of a draft chain: one candidate per position; the step verifies one token more than were drafted."""
    method = _method(launch)
    if method not in _SGLANG_METHODS:
        raise ConfigError(f"speculation: SGLang has no flag for {method} heads; expected a model, EAGLE, mtp or ngram")
    found = ["--speculative-algorithm", _SGLANG_METHODS[method]]
    found += ["--speculative-draft-model-path", launch.draft] if launch.draft else []
    if method != NGRAM:
        found += ["--speculative-num-steps", str(launch.drafted), "--speculative-eagle-topk", "1"]
    return [*found, "--speculative-num-draft-tokens", str(launch.drafted + 1)]


def _trtllm(launch: Launch) -> tuple[list[str], Config]:
    spread = launch.tp * launch.attention_replicas
    if launch.online:
        raise ConfigError(
            f"precision = {launch.deployment.precision.name}: trtllm-serve does not quantise a checkpoint "
            f"while loading it; "
            "give model_id= of a checkpoint in that format"
        )
    if launch.cp > 1:
        raise ConfigError(
            f"parallelism.cp = {launch.cp}: trtllm-serve has no context parallelism for prompts; its "
            "context_parallel_size is for Helix parallelism on servers that only decode; expected 1"
        )
    found = ["trtllm-serve", launch.model, "--host", launch.host, "--port", str(launch.port), "--backend", "pytorch"]
    found += _sized("--tp_size", spread) + _sized("--pp_size", launch.pp)
    found += ["--ep_size", str(spread)] if launch.expert_parallel else []
    config: Config = {"enable_attention_dp": True} if launch.attention_replicas > 1 else {}
    if launch.deployment.precision.kv.name == "fp8":
        _put(config, "kv_cache_config.dtype", "fp8")
    if launch.lora is not None:
        if not launch.adapters:
            raise ConfigError("lora: TensorRT-LLM reads the modules of adapters from their folders; give adapters=")
        _put(config, "lora_config.max_lora_rank", launch.rank)
        _put(config, "lora_config.max_loras", launch.slots)
        _put(config, "lora_config.max_cpu_loras", launch.slots)
        _put(config, "lora_config.lora_dir", list(launch.adapters.values()))
    for name, value in (_trtllm_speculation(launch) if launch.drafted else {}).items():
        _put(config, f"speculative_config.{name}", value)
    for name, value in _named(launch).items():
        where = next((key for key in TRTLLM_CONFIG if key.rpartition(".")[2] == _TRTLLM_NAMES.get(name, name)), None)
        if f"--{name}" in _TRTLLM_FLAGS:
            found += [f"--{name}", _text(value)]
        elif where is not None:
            _put(config, _TRTLLM_PLACES.get(name, where), list(value) if isinstance(value, tuple) else value)
        else:
            raise ConfigError(f"limits.{name} has no setting in TensorRT-LLM's configuration")
    return found, config


_TRTLLM_FLAGS = ("--max_batch_size", "--max_num_tokens", "--max_seq_len")
_TRTLLM_NAMES = {"cuda_graph_batch_sizes": "batch_sizes", "cuda_graph_max_batch_size": "max_batch_size"}
_TRTLLM_PLACES = {
    "cuda_graph_batch_sizes": "cuda_graph_config.batch_sizes",
    "cuda_graph_max_batch_size": "cuda_graph_config.max_batch_size",
}


def _trtllm_speculation(launch: Launch) -> Config:
    method = _method(launch)
    if method == MTP:
        return {"decoding_type": "MTP", "num_nextn_predict_layers": launch.drafted}
    if method == NGRAM:
        return {"decoding_type": "NGram", "max_draft_len": launch.drafted, "max_matching_ngram_size": LOOKUP_TOKENS}
    kinds = {"model": "Draft_Target", "eagle": "Eagle", "eagle3": "Eagle"}
    if method not in kinds:
        raise ConfigError(f"speculation: TensorRT-LLM serves no {method} heads; expected a model, EAGLE, mtp or ngram")
    return {"decoding_type": kinds[method], "max_draft_len": launch.drafted, "speculative_model": launch.draft}


def _put(config: Config, place: str, value: Any) -> None:
    group, dot, name = place.rpartition(".")
    (config.setdefault(group, {}) if dot else config)[name] = value


def _method(launch: Launch) -> str:
    """The drafting method: `ngram`, `mtp`, `model`, or the kind of draft heads."""
    drafting = launch.drafting
    if drafting is None or drafting.deployment is None:
        return NGRAM
    if drafting.kind == "MTP layer":
        return MTP
    if drafting.kind == "model":
        return "model"
    told = " ".join(drafting.deployment.model.notes).lower()
    kinds = {"eagle-3": "eagle3", "eagle": "eagle", "medusa": "medusa", "dflash": "dflash", "mlp": "mlp_speculator"}
    return next((method for word, method in kinds.items() if word in told), "mtp")


def _limits(launch: Launch, joint: str) -> list[str]:
    """The engine's settings as its own flags; switches have no value."""
    found: list[str] = []
    for name, value in _named(launch).items():
        flag = f"--{name.replace('_', joint)}"
        if value is True:
            found.append(flag)
        elif isinstance(value, tuple):
            found += [flag, *map(str, value)]
        elif value is not False:
            found += [flag, _text(value)]
    return found


def _named(launch: Launch) -> Config:
    """Settings by the names of the engine's flags. Raises ConfigError for a setting without a flag."""
    flags = OF_ENGINES[launch.engine]
    found: Config = {}
    for name, value in launch.limits.given.items():
        if name in flags:
            found[name] = value
            continue
        own = _SAME.get(launch.engine, {}).get(name, name if launch.engine == "vllm" and name in _VLLM_OWN else None)
        if own is None and name == "kv_host" and launch.engine == "vllm":
            own, value = "kv_offloading_size", value / 2**30
        if own is None:
            own = _by_setting(flags, name, value)
        if own is None:
            raise ConfigError(f"limits.{name} = {value} has no flag of {launch.engine}; leave it out, or say its own")
        found[own] = value
    if launch.engine == "sglang" and found.keys() & _SGLANG_TIERS:
        found = {"enable_hierarchical_cache": True, **found}
    return {name: value for name, value in found.items() if name not in _WRITTEN}


_VLLM_OWN = ("max_model_len", "max_num_batched_tokens", "max_num_seqs", "long_prefill_token_threshold", "max_cpu_loras")
_SAME: Mapping[str, Mapping[str, str]] = {
    "sglang": {"max_loras": "max_loras_per_batch", "max_lora_rank": "max_lora_rank"},
}
_SGLANG_TIERS = {"hicache_ratio", "hicache_size", "hicache_write_policy"}
"""Settings of the tiered cache, which also needs a flag of its own to enable it."""
_WRITTEN = ("max_loras", "max_lora_rank", "max_loras_per_batch")
"""Settings that are written from the deployment's LoraConfig."""


def _by_setting(flags: Mapping[str, Any], name: str, value: Any) -> str | None:
    """An engine's flag that corresponds to a setting of graphsim, with the same value."""
    wanted = OWN[name].settings(value)
    for own, flag in flags.items():
        try:
            if flag.settings(flag.check(own, value)) == wanted:
                return own
        except ConfigError:
            continue
    return None


def _sized(flag: str, count: int) -> list[str]:
    return [flag, str(count)] if count > 1 else []


def _modules(flag: str, adapters: Mapping[str, str]) -> list[str]:
    return [flag, *(f"{name}={path}" for name, path in adapters.items())] if adapters else []


def _text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


_WRITERS: Mapping[str, Callable[[Launch], tuple[list[str], Config]]] = {
    "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm,
}  # fmt: skip

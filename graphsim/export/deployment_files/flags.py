"""Flags and settings in start-up commands, each with the place where its engine documents it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_VLLM = "vLLM 0.33, vllm/engine/arg_utils.py, EngineArgs.add_cli_args"
_VLLM_SERVER = "vLLM 0.33, vllm/entrypoints/openai/cli_args.py"
_SGLANG = "SGLang 0.5.14, python/sglang/srt/server_args.py, ServerArgs.add_cli_args"
_SERVE = "TensorRT-LLM 1.2, tensorrt_llm/commands/serve.py, serve"
_ARGS = "TensorRT-LLM 1.2, tensorrt_llm/llmapi/llm_args.py"

VLLM: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("--host", "--port", "--lora-modules"), _VLLM_SERVER),
        **dict.fromkeys(
            (
                "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size",
                "--prefill-context-parallel-size", "--decode-context-parallel-size",
                "--enable-expert-parallel", "--quantization", "--kv-cache-dtype", "--enable-lora", "--max-loras",
                "--max-lora-rank", "--max-cpu-loras", "--fully-sharded-loras", "--speculative-config",
                "--max-model-len", "--max-num-batched-tokens", "--max-num-seqs", "--long-prefill-token-threshold",
                "--gpu-memory-utilization", "--block-size", "--num-gpu-blocks-override", "--enable-prefix-caching",
                "--no-enable-prefix-caching", "--enable-chunked-prefill", "--no-enable-chunked-prefill",
                "--no-async-scheduling", "--scheduling-policy", "--scheduler-reserve-full-isl",
                "--prefill-schedule-interval", "--cudagraph-capture-sizes", "--max-cudagraph-capture-size",
                "--kv-offloading-size", "--kv-offloading-backend",
            ),
            _VLLM,
        ),
    }
)  # fmt: skip
"""Flags of `vllm serve`."""

SPECULATIVE_CONFIG: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("method", "model", "num_speculative_tokens", "draft_tensor_parallel_size", "prompt_lookup_max"),
        "vLLM 0.33, vllm/config/speculative.py, SpeculativeConfig",
    )
)
"""Keys of `--speculative-config`."""

SGLANG: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (
            "--attn-cp-size", "--enable-prefill-cp", "--cp-strategy", "--moe-dp-size",
            "--model-path", "--host", "--port", "--tp-size", "--pp-size", "--dp-size", "--ep-size",
            "--enable-dp-attention", "--quantization", "--kv-cache-dtype", "--enable-lora", "--lora-paths",
            "--max-lora-rank", "--lora-target-modules", "--max-loras-per-batch", "--max-loaded-loras",
            "--speculative-algorithm", "--speculative-draft-model-path", "--speculative-num-steps",
            "--speculative-eagle-topk", "--speculative-num-draft-tokens", "--max-running-requests",
            "--chunked-prefill-size", "--max-prefill-tokens", "--max-total-tokens", "--context-length",
            "--mem-fraction-static", "--page-size", "--disable-radix-cache", "--schedule-policy",
            "--enable-priority-scheduling", "--schedule-conservativeness", "--enable-mixed-chunk",
            "--disable-overlap-schedule", "--scheduler-recv-interval", "--lora-eviction-policy",
            "--enable-lora-overlap-loading", "--lora-drain-wait-threshold", "--cuda-graph-bs", "--cuda-graph-max-bs",
            "--disable-cuda-graph-padding", "--enable-hierarchical-cache", "--hicache-ratio", "--hicache-size",
            "--hicache-write-policy",
        ),
        _SGLANG,
    )
)  # fmt: skip
"""Flags of `python -m sglang.launch_server`."""

TRTLLM: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (
            "--host", "--port", "--backend", "--tp_size", "--pp_size", "--ep_size", "--max_batch_size",
            "--max_num_tokens", "--max_seq_len", "--kv_cache_free_gpu_memory_fraction", "--config",
        ),
        _SERVE,
    )
)  # fmt: skip
"""Flags of `trtllm-serve`."""

TRTLLM_CONFIG: Mapping[str, str] = MappingProxyType(
    {
        "enable_attention_dp": f"{_ARGS}, BaseLlmArgs", "enable_chunked_prefill": f"{_ARGS}, BaseLlmArgs",
        "disable_overlap_scheduler": f"{_ARGS}, TorchLlmArgs",
        "batch_wait_timeout_iters": f"{_ARGS}, TorchLlmArgs",
        "batch_wait_max_tokens_ratio": f"{_ARGS}, TorchLlmArgs",
        **{f"kv_cache_config.{name}": f"{_ARGS}, KvCacheConfig" for name in
           ("dtype", "max_tokens", "tokens_per_block", "enable_block_reuse", "free_gpu_memory_fraction",
            "host_cache_size")},
        "scheduler_config.capacity_scheduler_policy": f"{_ARGS}, SchedulerConfig",
        **{f"cuda_graph_config.{name}": f"{_ARGS}, CudaGraphConfig" for name in
           ("batch_sizes", "max_batch_size", "enable_padding")},
        **{f"lora_config.{name}": "TensorRT-LLM 1.2, tensorrt_llm/lora_helper.py, LoraConfig" for name in
           ("lora_dir", "max_lora_rank", "max_loras", "max_cpu_loras")},
        **{f"speculative_config.{name}": f"{_ARGS}, DecodingBaseConfig and its kinds" for name in
           ("decoding_type", "max_draft_len", "speculative_model", "num_nextn_predict_layers",
            "max_matching_ngram_size")},
    }
)  # fmt: skip
"""Keys of the YAML file that `--config` reads; a dot separates nested keys."""

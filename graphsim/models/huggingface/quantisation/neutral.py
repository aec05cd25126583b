"""Keys of a `quantization_config` that do not affect the formats of modules."""

from __future__ import annotations

NEUTRAL = frozenset((
    "act_bits", "act_data_type", "act_dynamic", "act_group_aware", "act_group_size", "act_sym", "activation_scale_ub",
    "activation_scheme", "algo_config", "amp", "apply_clip", "autoround_version", "backend", "batch_size",
    "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage", "cache_block_outputs", "calibration", "checkpoint_format",
    "config_groups", "custom_mode", "damp_auto_increment", "damp_percent", "dataset", "dequantize", "disable_exllama",
    "do_fuse", "duo_scaling", "dynamic_max_gap", "enable_minmax_tuning", "enable_norm_bias_tuning",
    "enable_quanted_input", "enable_torch_compile", "exllama_config", "exllama_version", "export_format", "fast_eval",
    "fmt", "fuse_max_seq_len", "global_compression_ratio", "gptq_config", "gradient_accumulate_steps", "group_size",
    "has_zero_point", "input_scale", "is_marlin_format", "iters", "llm_int8_enable_fp32_cpu_offload",
    "llm_int8_has_fp16_weight", "llm_int8_threshold", "low_cpu_mem_usage", "low_gpu_mem_usage", "lr", "lr_scheduler",
    "max_calib_samples", "max_calib_seq_len", "max_input_length", "meta", "minmax_lr", "model_file_base_name",
    "model_name_or_path", "model_seqlen", "module_name_preceding_first_block", "modules_to_fuse",
    "n_parallel_calib_samples", "nblocks", "not_use_best_mse", "nsamples", "offload_meta", "pack_dtype",
    "packing_format", "pad_token_id", "pre_quant_scale", "producer", "quant_algo_config", "quant_backend",
    "quant_mode", "quantization_mode", "quantization_status", "rms_norm_eps", "run_compressed", "sampler",
    "scale_dtype", "scale_fmt", "seed", "seqlen", "softmax_quant_spec", "static_groups",
    "supported_types", "tokenizer", "train_bs", "true_sequential", "tune_metadata",
    "untie_embedding_weights", "use_cuda_fp16", "use_exllama", "use_optimized_inference", "use_rms_norm", "version",
    "view_as_float",
))  # fmt: skip
"""Keys that describe how a checkpoint was made or is run, not how its modules are stored."""

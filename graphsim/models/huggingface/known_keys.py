"""Keys of a config.json that do not affect the structure of any model in transformers.

`tests/models/huggingface/test_neutral_keys.py` verifies the list: if a default config has one of these keys,
transformers builds the same modules with the same shapes for any value.
"""

from __future__ import annotations

_BOOKKEEPING = """
    architectures auto_map auto_mapping custom_pipelines dtype torch_dtype transformers_version
    transformers.js_config model_type model_name is_composition return_dict return_dict_in_generate
    output_attentions output_hidden_states output_scores output_router_logits torchscript problem_type id2label
    label2id num_labels task task_specific_params finetuning_task language languages_to_load revision commit_hash
    license tags use_cache use_bfloat16 use_fp16 fp16 fp32 bf16 tf_legacy_loss library_name unsloth_fixed
    unsloth_version lang tokenizer_class processor_class model_max_length model_parallel torch_compile onnx seed
    trust_remote_code generation_config base_model is_decoder summary_type summary_use_proj summary_proj_to_labels
    summary_activation pretraining_tp use_pretrained_backbone has_no_defaults_at_init
"""
"""Keys of a checkpoint's name, version and files, and of additional outputs."""

_TOKENS = """
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id
    decoder_start_token_id forced_bos_token_id forced_eos_token_id begin_suppress_tokens suppress_tokens
    bad_words_ids pad_token bos_token eos_token image_token_id image_token_index image_token video_token_id
    video_token_index audio_token_id audio_token_index boi_token_id boi_token_index eoi_token_id eoi_token_index
    boa_token_id eoa_token_id eoa_token_index vision_start_token_id vision_end_token_id vision_token_id
    image_start_token_id image_end_token_id video_start_token_id video_end_token_id audio_start_token_id
    audio_end_token_id audio_bos_token_id audio_eos_token_id image_break_token_id image_newline_token_id
    start_token_id end_token_id user_token_id newline_token_id tokenizer_id image_seq_length video_seq_length langs
    vision_aspect_ratio
"""

_GENERATION = """
    max_length min_length max_new_tokens min_new_tokens do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p min_p epsilon_cutoff eta_cutoff repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size num_return_sequences remove_invalid_values
    exponential_decay_length_penalty renormalize_logits guidance_scale cache_implementation num_logits_to_keep
    prefix output_past force_bos_token_to_be_generated median_filter_width
"""

_TRAINING = """
    attention_dropout attn_dropout attn_pdrop attention_probs_dropout_prob attn_dropout_prob activation_dropout
    dropout dropout_rate drop_path_rate drop_rate embd_pdrop emb_pdrop embed_dropout embedding_dropout
    embd_dropout_prob hidden_dropout hidden_dropout_prob hidden_dropout_rate ffn_dropout projection_dropout
    resid_dropout resid_pdrop residual_dropout mlp_dropout token_dropout classifier_dropout classifier_dropout_prob
    summary_first_dropout summary_last_dropout layerdrop encoder_layerdrop decoder_layerdrop dropout_p
    moe_token_dropout initializer_range initializer_factor initializer_cutoff_factor init_std init_method
    embed_init_std embedding_initializer_range rescale_prenorm_residual time_step_min time_step_max time_step_floor
    time_step_limit time_step_init_scheme router_aux_loss_coef router_z_loss_coef aux_loss_alpha aux_loss_coef
    z_loss_coefficient seq_aux router_jitter_noise input_jitter_noise label_smoothing output_router_logits
    gradient_checkpointing moe_router_bias_update_speed mtp_loss_scaling_factor mtp_loss_weight bias_update_factor
    load_balance_coeff apply_spec_augment mask_time_prob mask_time_length mask_time_min_masks mask_feature_prob
    mask_feature_length mask_feature_min_masks w_init_variance_scale final_w_init_variance_scale init_device
    linear_a_log_min linear_a_log_max linear_dt_min linear_dt_max linear_dt_init_floor use_recompute train_size
    time_step_scale linear_lower_bound gate_lower_bound learnable_sink_init classif_dropout
"""

_ARITHMETIC = """
    rms_norm_eps layer_norm_eps layer_norm_epsilon layernorm_epsilon layernorm_eps norm_eps norm_epsilon eps rms_eps
    hc_eps mixer_rms_eps attn_logit_softcap hidden_act hidden_activation activation_function activation act_fn
    dense_act_fn mlp_hidden_act mamba_hidden_act ssm_act_fn embedding_multiplier residual_multiplier logits_scaling
    attention_multiplier lm_head_multiplier key_multiplier attention_in_multiplier attention_out_multiplier
    ssm_in_multiplier ssm_out_multiplier mlp_multipliers ssm_multipliers logit_scale query_pre_attn_scalar
    scale_embedding scale_emb scale_depth dim_model_base normalize_embedding emb_scale scale_attn_weights
    scale_attn_by_inverse_layer_idx reorder_and_upcast_attn attention_softmax_in_fp32
    scale_attention_softmax_in_fp32 residual_in_fp32 routed_scaling_factor router_scaling_factor norm_topk_prob
    norm_min moe_norm_min topk_method topk_group n_group num_expert_group topk_groups scoring_func score_function
    score_func swiglu_limit swiglu_alpha softmax_scale clip_qkv route_norm route_scale router_dtype
    attn_temperature_tuning floor_scale attn_scale temperature_tuning use_mrope hidden_act_alpha fused_softmax
    apply_residual_connection_post_layernorm_scale full_attn_alpha_factor full_attn_beta_factor
    linear_attn_alpha_factor linear_attn_beta_factor mlp_alpha_factor mlp_beta_factor scale_decoder_outputs
    projector_hidden_act shared_expert_combination_strategy expert_selection_fn enable_moe_fp32_combine
    moe_routed_scaling_factor kda_safe_gate kda_lower_bound linear_allow_neg_eigval altup_coef_clip
    attention_value_scale slow_but_exact apply_residual_connection_post_layernorm mamba_norm_before_gate
    moe_shared_expert_overlap residual_scale moe_renormalize router_logit_softcapping moe_router_logit_softcapping
    mamba_ssm_cache_dtype mamba_ssm_dtype use_mamba_kernels use_mambapy use_associative_scan mamba_chunk_size
    mup_enabled moe_router_scaling_factor moe_router_activation_func use_grouped_topk rms_norm_eps_moe_gate
    hc_magnitude logits_mup_width_multiplier swiglu_limits projection_layer_norm_eps projector_layernorm_eps
"""
"""Constants in formulas, whose values do not affect the cost of kernels."""

_POSITIONS = """
    rope_theta rope_scaling rope_parameters rope_ratio rope_type rope_local_base_freq rope_interleave
    rotary_emb_base rotary_pct rotary_dim partial_rotary_factor rotary_base rope_pct rope_partial_factor
    global_rope_theta local_rope_theta default_theta compress_rope_theta layer_rope_theta
    original_max_position_embeddings rope_percent use_dynamic_ntk alibi_bias_max rotary_embedding_base mrope_section
    rope_style rotary_emb_fraction initial_context_length rotary_emb_interleaved rotary_emb_scale_base
    use_long_context log_scaling_n_floor log_scaling_alpha max_sequence_length
"""
"""Angles of rotary embeddings, which do not affect their cost."""

_KERNELS = """
    attn_implementation use_flash_attn use_flash_attention use_flash_attention_2 use_flash_rotary use_flash_rmsnorm
    use_kernel use_fused_rmsnorm use_fused_swiglu fused_dropout_add_ln flash_attn use_cache_kernel
    use_cache_quantization softmax_in_fp32 use_mem_eff_path use_parallel_embedding use_rmsnorm_kernel
    chunk_size_feed_forward use_liger_kernel ep_size
"""
"""Choice among implementations of the same operations."""


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


NEUTRAL = _words(_BOOKKEEPING, _TOKENS, _GENERATION, _TRAINING, _ARITHMETIC, _POSITIONS, _KERNELS)
"""All keys that do not affect the structure."""

SILENT_OFF = _words(
    """
    is_encoder_decoder add_cross_attention tie_encoder_decoder
    """
)
"""Keys that all configs of transformers used to have; without effect if off."""

DRAFTS = _words(
    """
    num_nextn_predict_layers mtp_num_hidden_layers num_mtp_modules mtp_transformer_layers mtp_layers_block_type
    use_mtp mtp_use_dedicated_embeddings num_mtp_layers mtp_num_layers mtp_layer_types mtp_mlp_layer_types
    mtp_hidden_states_first mtp_local_layer_ids mtp_hybrid_override_pattern mtp_share_layers
    """
)
"""Keys of layers that predict further tokens: in checkpoints, but not part of a step without speculation."""

SHAPING_WORDS = _words(
    """
    adapter altup attention attn bias block blocks bottleneck branch capacity channel channels compress conv count
    cross crossattention d decoder deepnorm dense depth depths dilation dim dims downsample embd embed embedding
    embeddings encoder every expand expansion expert experts factor factors feedforward ff ffn freq frequency fused
    gate gated gates global gqa group groups head heads hidden highway hybrid hyper indexer inner intermediate
    interval k kernel key keys kv latent latents layer layers layout length linear local lora mamba memory merge
    meta mixer mla mlp moe mtp mult multiple multiplier n nextn norm normalization norms nsa num pad parallel
    parallelism patch pattern period pool pooler pooling position positions proj projection projector q qk qkv query
    rank ranks ratio recurrence recurrent repeat residual rnn route routed router rwkv sandwich sequence share
    shared sink sinks size sizes skip sliding slot slots sparse ssm stack stage stages state step stride sub tie
    tied top topk type types unit units use v value values vocab vocabulary width window with
    """
)
"""Words in the names of keys that shape layers."""

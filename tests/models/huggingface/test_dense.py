"""Dense decoders of classes that transformers does not have, or no longer: names, caches, refusals."""

from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import decode
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

CONFIGS = hf_configs()


def load(name: str, **changes: Any) -> gs.ModelConfig:
    return from_config(CONFIGS[name] | changes, name)


@pytest.mark.parametrize(
    ("name", "rank", "modules", "parameters"),
    [
        # ssbuild/chatglm_finetuning issue 254: trainable params 14680064
        ("zai-org/chatglm-6b", 32, ["query_key_value"], 14680064),
        # modelscope/ms-agent issue 198: 0.0543 % of all, the adapter included
        ("Qwen/Qwen-7B-Chat", 8, ["c_attn"], 4194304),
        # the defaults of PEFT 0.21, constants.py: rank x (inputs + outputs) of each weight
        ("zai-org/chatglm3-6b", 8, ["query_key_value"], 28 * 8 * (4096 + 4608)),
        (
            "RWKV/rwkv-4-169m-pile",
            8,
            ["key", "value", "receptance", "output"],
            12 * 8 * (5 * 2 * 768 + 2 * (768 + 3072)),
        ),
        # names of the checkpoint's own class
        ("internlm/internlm2-7b", 8, ["wqkv", "wo"], 32 * 8 * (4096 + 6144 + 2 * 4096)),
        ("baichuan-inc/Baichuan-7B", 8, ["W_pack"], 32 * 8 * 4 * 4096),
        ("LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct", 8, ["out_proj", "c_fc_0"], 32 * 8 * (3 * 4096 + 14336)),
        ("megatron-22b", 8, ["linear_qkv", "linear_fc2"], 48 * 8 * (4 * 6144 + 5 * 6144)),
        ("nemotron-nas-mini", 8, ["linear_attn"], 2 * 8 * 2 * 2048),
    ],
)
def test_adapters_reach_modules_by_the_names_of_the_models_own_class(
    name: str, rank: int, modules: list[str], parameters: int
) -> None:
    assert gs.lora_parameters(load(name), gs.LoraConfig(rank=rank, target_modules=modules)) == parameters


def cache_bytes(model: gs.ModelConfig, context: float) -> float:
    graph = build(model, decode(1.0, context - 1.0), load_precision("bf16"))
    return sum(float(op.state_bytes) * times for _, op, times in walk(graph))


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        # keys and values of 2 bytes: layers x key heads x width of a head
        ("zai-org/chatglm3-6b", 2 * 2 * 28 * 2 * 128),
        ("zai-org/chatglm-6b", 2 * 2 * 28 * 32 * 128),
        ("internlm/internlm2-7b", 2 * 2 * 32 * 8 * 128),
        ("baichuan-inc/Baichuan-13B-Base", 2 * 2 * 40 * 40 * 128),
        # 49 of 80 layers attend
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 2 * 2 * 49 * 8 * 128),
        # key heads 4, 4, 2, 1, 1, 1
        ("deci-variable-heads", 2 * 2 * 13 * 64),
        ("default:diffllama", 2 * 2 * 16 * 32 * 64),
        ("RWKV/rwkv-4-169m-pile", 0),
        ("default:xlstm", 0),
        # every use of the shared transformer has a cache of its own: layers 2, 7, 13 and so on
        ("default:zamba", 2 * 2 * 13 * 16 * 464),
        # 64 of 162 layers attend
        ("nvidia/Llama-3_1-Nemotron-Ultra-253B-v1", 2 * 2 * 64 * 8 * 128),
    ],
)
def test_the_cache_grows_per_token_by_the_key_heads_of_the_layers_that_attend(name: str, per_token: int) -> None:
    model = load(name)
    assert cache_bytes(model, 257.0) - cache_bytes(model, 256.0) == per_token


def test_a_recurrent_state_is_two_tokens_and_three_sums_a_channel() -> None:
    # transformers' RwkvModel: two states in the activations' format, three in fp32
    assert cache_bytes(load("RWKV/rwkv-4-169m-pile"), 100.0) == 12 * 768 * (2 * 2 + 3 * 4)


def test_a_matrix_memory_is_keys_times_values_a_head_with_a_normaliser_and_a_gate() -> None:
    # arXiv 2405.04517, section 2.3, in fp32 as the config's inference_state_dtype says
    assert cache_bytes(load("default:xlstm"), 100.0) == pytest.approx(32 * 8 * (256 * 512 + 256 + 1) * 4)


def test_gpt2_said_by_megatrons_arguments_is_gpt2() -> None:
    sizes = {"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "vocab_size": 50257}
    model = from_config({"model_type": "megatron-gpt2", "max_position_embeddings": 1024, **sizes}, "args.json")
    assert model.num_parameters == 124439808  # transformers 5.24, GPT2LMHeadModel


def test_an_output_heads_bias_is_its_own_where_its_weights_are_the_embeddings() -> None:
    tied, untied = (load("ctrl-small", tie_word_embeddings=flag) for flag in (True, False))
    assert untied.num_parameters - tied.num_parameters == 1000 * 96


MINI = CONFIGS["nemotron-nas-mini"]["block_configs"]


@pytest.mark.parametrize(
    ("name", "changes", "found"),
    [
        ("Qwen/Qwen-7B-Chat", {"visual": {"layers": 48}}, "visual"),
        ("Qwen/Qwen-7B-Chat", {"intermediate_size": 22017}, "intermediate_size"),
        ("zai-org/glm-4-9b", {"vision_config": {"image_size": 1120}}, "vision_config"),
        ("zai-org/chatglm3-6b", {"pre_seq_len": 128}, "pre_seq_len"),
        ("zai-org/chatglm3-6b", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("openbmb/MiniCPM-2B-sft-bf16", {"num_experts": 8}, "num_experts"),
        ("openbmb/MiniCPM-2B-sft-bf16", {"sparse_config": {"topk": 64}}, "sparse_config"),
        ("megatron-22b", {"num_experts": 8}, "num_experts"),
        ("megatron-22b", {"position_embedding_type": "relative"}, "position_embedding_type"),
        ("megatron-22b", {"tie_word_embeddings": True, "untie_embeddings_and_output_weights": True}, "contradicts"),
        ("diffllama-bias", {"num_key_value_heads": 3}, "num_key_value_heads"),
        ("moshi-small", {"architectures": ["MoshiForConditionalGeneration"]}, "MoshiForCausalLM"),
        ("xlstm-fused", {"num_blocks": 3}, "num_blocks"),
        ("zamba-small", {"attention_hidden_size": 96}, "attention_hidden_size"),
        ("zamba-small", {"layers_block_type": ["hybrid"] * 7}, "layers_block_type"),
        ("nemotron-nas-mini", {"block_configs": MINI[:5]}, "block_configs has 5 entries"),
        ("nemotron-nas-mini", {"block_configs": [{"attention": {"n_heads_in_group": 5}, "ffn": MINI[0]["ffn"]}] * 14},
         r"block_configs\[0\]\.attention\.n_heads_in_group = 5"),
        ("nemotron-nas-mini", {"block_configs": [{"attention": {"no_op": True}, "ffn": {"moe": {"n": 8}}}] * 14},
         r"block_configs\[0\]\.ffn\.moe"),
        ("deci-variable-heads", {"num_key_value_heads_per_layer": [4, 3, 2, 1, 1, 1]}, "num_key_value_heads_per_layer"),
    ],
)  # fmt: skip
def test_parts_that_are_not_simulated_are_refused_by_name(name: str, changes: dict[str, Any], found: str) -> None:
    with pytest.raises(gs.ConfigError, match=found):
        load(name, **changes)

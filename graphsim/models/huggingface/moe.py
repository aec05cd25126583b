"""Families with mixtures of experts and ordinary attention."""

from __future__ import annotations

from collections.abc import Sequence

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Dims,
    Reader,
    assemble,
    pre_norm,
    read_dims,
    self_attention,
    size,
    windows,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer


def experts_of(fields: Fields) -> tuple[int, int]:
    """How many experts there are, and how many of them a token chooses."""
    experts = size(fields, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", most=100_000)
    chosen = size(
        fields,
        "num_experts_per_tok",
        "experts_per_token",
        "num_experts_per_token",
        "moe_k",
        "moe_top_k",
        "moe_topk",
        default=2,
    )
    if chosen > experts:
        fields.problems.append(f"num_experts_per_tok = {chosen} is not allowed; expected at most the {experts} experts")
    return experts, min(chosen, experts)


def shared_mlp(width: int, name: str = "mlp.shared_experts", linear: bool = False) -> Mlp | None:
    """The experts that all tokens pass, as one MLP; None where there are none."""
    if not width:
        return None
    names = MlpNames(gate=f"{name}.gate_proj", up=f"{name}.up_proj", down=f"{name}.down_proj")
    return Mlp(intermediate=width, names=names, linear=linear)


MIXTRAL_NAMES = MoeNames(experts=("w1", "w3", "w2"))
"""As Mixtral's own weights call an expert's gate, up and down."""


def mixtral_experts(fields: Fields, dims: Dims) -> Moe:
    """Experts as Mixtral names them; adapters reach them and their router."""
    experts, chosen = experts_of(fields)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        adapt_experts=True,
        adapt_router=True,
        names=MIXTRAL_NAMES,
    )


def mixtral(fields: Fields, name: str) -> ModelConfig:
    """Mixtral: every layer has experts."""
    dims = read_dims(fields)
    moe = mixtral_experts(fields, dims)
    slides = windows(fields, dims.layers, lambda i: True)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, w, out_bias=False), moe) for w in slides])


def minimax_m2(fields: Fields, name: str) -> ModelConfig:
    """Mixtral with norms over all queries and keys, and learned corrections of the scores."""
    dims = read_dims(fields)
    moe = mixtral_experts(fields, dims)
    qk = QkNorm.FULL if fields.flag("use_qk_norm", True) else QkNorm.NONE
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, qk=qk), moe)] * dims.layers)


def qwen_moe(fields: Fields, name: str) -> ModelConfig:
    """Qwen 2 and 3: experts in most layers, Qwen 2 with a shared one behind a gate."""
    dims = read_dims(fields)
    second = fields.data.get("model_type") == "qwen2_moe"
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=shared_mlp(size(fields, "shared_expert_intermediate_size"), "mlp.shared_expert", True)
        if second
        else None,
        shared_gate=second,
        adapt_experts=not second,
        adapt_router=not second,
    )
    dense = Mlp(intermediate=dims.intermediate, linear=second)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=fields.flag("qkv_bias", True) if second else fields.flag("attention_bias", False),
        out_bias=not second and fields.flag("attention_bias", False),
        qk_norm=QkNorm.NONE if second else QkNorm.HEAD,
    )
    sparse = sparse_layers(fields, dims.layers)
    return assemble(name, dims, [pre_norm(attention, moe if has else dense) for has in sparse])


def sparse_layers(fields: Fields, layers: int) -> list[bool]:
    """Which layers have experts: every `decoder_sparse_step`-th but those in `mlp_only_layers`."""
    step = size(fields, "decoder_sparse_step", default=1)
    dense = [i for i in fields.sequence("mlp_only_layers") if isinstance(i, int)]
    return [(i + 1) % step == 0 and i not in dense for i in range(layers)]


def gpt_oss(fields: Fields, name: str) -> ModelConfig:
    """Biases everywhere, sinks in the softmax, every other layer slides."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    names = MoeNames(router="mlp.router")
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, router_bias=True, bias=True, names=names)
    bias = fields.flag("attention_bias", True)
    blocks: list[Layer] = []
    for window in windows(fields, dims.layers, lambda i: i % 2 == 0):
        attention = SelfAttention(
            heads=dims.heads,
            kv_heads=dims.kv_heads,
            head_dim=dims.head_dim,
            window=window,
            qkv_bias=bias,
            out_bias=bias,
            sinks=True,
        )
        blocks.append(pre_norm(attention, moe))
    return assemble(name, dims, blocks)


def olmoe(fields: Fields, name: str) -> ModelConfig:
    """Norms over all queries and keys, experts in every layer."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, adapt_experts=True, adapt_router=True)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, qk=QkNorm.FULL), moe)] * dims.layers)


def phimoe(fields: Fields, name: str) -> ModelConfig:
    """LayerNorm, biases in the attention, a bias on the head on request."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    names = MoeNames(router="mlp.router")
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, adapt_router=True, names=names)
    head = Head(
        vocab_size=dims.vocab,
        tied=dims.tied,
        bias=fields.flag("lm_head_bias", False),
        norm=NormLayer(name="model.norm", kind="layer"),
    )
    slides = windows(fields, dims.layers, lambda i: True)
    blocks = [pre_norm(attention_of(fields, dims, w), moe, "layer") for w in slides]
    return assemble(name, dims, blocks, head=head)


def granitemoe(fields: Fields, name: str) -> ModelConfig:
    """Granite with experts, and a shared MLP beside them where the config has one."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    width = size(fields, "shared_intermediate_size", default=0, least=0)
    shared = None
    if width and fields.data.get("model_type") != "granitemoe":
        names = MlpNames(fused="shared_mlp.input_linear", down="shared_mlp.output_linear")
        shared = Mlp(intermediate=width, names=names)
    names_ = MoeNames(
        router="block_sparse_moe.router",
        gate_up="block_sparse_moe.experts.gate_up_proj",
        down="block_sparse_moe.experts.down_proj",
    )
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, shared=shared, names=names_)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims), moe)] * dims.layers)


def glm4_moe(fields: Fields, name: str) -> ModelConfig:
    """The first layers dense, then routed and shared experts with corrected scores."""
    dims = read_dims(fields, floor=True)
    qk = QkNorm.HEAD if fields.flag("use_qk_norm", False) else QkNorm.NONE
    attention = attention_of(fields, dims, out_bias=False, qk=qk)
    return assemble(name, dims, dense_then_sparse(fields, dims, attention))


def dense_then_sparse(
    fields: Fields, dims: Dims, attention: Layer | Sequence[Layer], *, adapt: bool = True
) -> list[Layer]:
    """`first_k_dense_replace` dense layers, then experts with shared ones beside them (DeepSeek's layout).

    attention: of all layers, or of each; adapt: PEFT's all-linear reaches the experts' stacks, as it finds them in
        older checkpoints, and then none of the MLPs that bear the same names
    """
    experts, chosen = experts_of(fields)
    width = size(fields, "moe_intermediate_size")
    beside = size(fields, "n_shared_experts", "num_shared_experts", default=0, least=0, most=1000)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=shared_mlp(width * beside, linear=not adapt),
        adapt_experts=adapt,
        adapt_router=adapt,
    )
    first = size(fields, "first_k_dense_replace", default=0, least=0)
    kinds = fields.sequence("mlp_layer_types", most=2_000) or [
        "dense" if i < first else "sparse" for i in range(dims.layers)
    ]
    if len(kinds) != dims.layers:
        fields.problems.append(f"mlp_layer_types has {len(kinds)} entries, expected {dims.layers}")
    dense = Mlp(intermediate=dims.intermediate, linear=not adapt)
    attentions = [attention] * dims.layers if isinstance(attention, Layer) else attention
    return [pre_norm(each, dense if kind == "dense" else moe) for each, kind in zip(attentions, kinds, strict=False)]


def ernie_moe(fields: Fields, name: str) -> ModelConfig:
    """Ernie 4.5: a dense start, then routed and shared experts with learned corrections."""
    dims = read_dims(fields, tied=True)
    experts, chosen = experts_of(fields)
    width, bias = size(fields, "moe_intermediate_size"), fields.flag("use_bias", False)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=shared_mlp(width * size(fields, "moe_num_shared_experts", default=0, least=0, most=1000)),
        correction=True,
        adapt_experts=True,
        adapt_router=True,
    )
    attention = self_attention(dims, bias=bias)
    start = size(fields, "moe_layer_start_index", default=1, least=0)
    end = size(fields, "moe_layer_end_index", default=dims.layers - 1, least=0)
    step = size(fields, "moe_layer_interval", default=1)
    dense = Mlp(intermediate=dims.intermediate, bias=bias, linear=False)
    sparse = [(i + 1) % step == 0 and start <= i <= end for i in range(dims.layers)]
    return assemble(name, dims, [pre_norm(attention, moe if has else dense) for has in sparse])


def llama4(fields: Fields, name: str) -> ModelConfig:
    """Experts with a shared one, chunked attention in most layers, dense layers between where the step says."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    shared = MlpNames(**{part: f"feed_forward.shared_expert.{part}_proj" for part in ("gate", "up", "down")})
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=Mlp(intermediate=dims.intermediate, names=shared),
        adapt_router=True,
        names=MoeNames(
            router="feed_forward.router",
            gate_up="feed_forward.experts.gate_up_proj",
            down="feed_forward.experts.down_proj",
        ),
    )
    own = MlpNames(**{part: f"feed_forward.{part}_proj" for part in ("gate", "up", "down")})
    dense = Mlp(intermediate=size(fields, "intermediate_size_mlp", default=dims.intermediate), names=own)
    step = size(fields, "interleave_moe_layer_step", default=1)
    sparse = [i for i in fields.sequence("moe_layers") if isinstance(i, int)] or list(
        range(step - 1, dims.layers, step)
    )
    chunk = size(fields, "attention_chunk_size", default=8192)
    rotary = [bool(flag) for flag in fields.sequence("no_rope_layers")]
    if len(rotary) != dims.layers:
        rotary = [(i + 1) % size(fields, "no_rope_layer_interval", default=4) != 0 for i in range(dims.layers)]
    blocks: list[Layer] = [
        pre_norm(attention_of(fields, dims, chunk if turns else 0), moe if i in sparse else dense)
        for i, turns in enumerate(rotary)
    ]
    return assemble(name, dims, blocks)


def dbrx(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, LayerNorm without bias, experts in every layer."""
    attn, ffn = fields.mapping("attn_config", lenient=True), fields.mapping("ffn_config", lenient=True)
    width = size(ffn, "ffn_hidden_size", default=3584)
    fields.data = {"num_key_value_heads": None, **fields.data, "intermediate_size": width}
    dims = read_dims(fields, kv_heads=size(attn, "kv_n_heads", default=1))
    experts = size(ffn, "moe_num_experts", default=4)
    attention = self_attention(
        dims, names=AttentionNames(fused="norm_attn_norm.attn.Wqkv", o="norm_attn_norm.attn.out_proj")
    )
    moe = Moe(
        experts=experts,
        chosen=min(size(ffn, "moe_top_k", default=1), experts),
        intermediate=width,
        adapt_router=True,
        names=MoeNames(router="ffn.router.layer", gate_up="ffn.experts.mlp.w1_v1", down="ffn.experts.mlp.w2"),
    )
    kind = "layer_no_bias"
    norms = ("norm_attn_norm.norm_1", "norm_attn_norm.norm_2")
    return assemble(
        name,
        dims,
        [pre_norm(attention, moe, kind, norms)] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.wte"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name="transformer.norm_f", kind=kind)),
        prefix="transformer.blocks.{}.",
    )


FAMILIES: dict[str, Reader] = {
    "mixtral": mixtral,
    "minimax_m2": minimax_m2,
    "qwen2_moe": qwen_moe,
    "qwen3_moe": qwen_moe,
    "gpt_oss": gpt_oss,
    "olmoe": olmoe,
    "phimoe": phimoe,
    "granitemoe": granitemoe,
    "granitemoeshared": granitemoe,
    "glm4_moe": glm4_moe,
    "ernie4_5_moe": ernie_moe,
    "llama4_text": llama4,
    "llama4": llama4,
    "dbrx": dbrx,
}
"""Readers by `model_type`."""

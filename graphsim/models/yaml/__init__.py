"""Model files: YAML that a person writes in five minutes, read into a ModelConfig.

    hidden_size: 4096              # width of the residual stream
    vocab_size: 32000
    layers: 32                     # a number, or a list of groups that differ (below)
    attention: {heads: 32, kv_heads: 8}
    mlp: {intermediate_size: 14336}

Every key, with its default; keys without one are required.

    name            the file's stem           source, notes     free text, list of texts
    parameters      0: the published count    aliases           other spellings of the name
    ids             Hugging Face ids that the model is published under: [Qwen/Qwen3-32B]
    max_positions   0: longest context        learned_positions false: a table of max_positions is added
    tied_embeddings false                     head_bias         false: bias of the output head
    logit_soft_cap  0: none; 30.0 in Gemma 2
    norm            rms, layer, layer_no_bias, rms_no_weight, layer_no_weight
    norm_placement  pre, post, both           residual          sequential, parallel, parallel_two_norms
    final_norm      true                      embedding_norm    none: kind of a norm behind the embedding
    precision       of a quantised checkpoint: fp8, nvfp4, int4, …
    attention       heads, kv_heads (heads), head_dim (hidden_size / heads), value_dim (head_dim), window (0: all),
                    bias (false: qkv_bias, out_bias), rope (true), qk_norm (none, head,
                    own_head, full), gated, sinks (false), soft_cap (0: none; 50.0 in Gemma 2),
                    names: q, k, v, o, q_norm, k_norm, or qkv for one fused weight
    latent_attention
                    heads, kv_rank (width of the cached latent), nope and rope (a head's dimensions without and with
                    positions; rope 0), value_dim, q_rank (0: queries are not compressed), bias (false),
                    indexer: heads, head_dim, chosen (keys that a query sees)
    mamba           width (2 * hidden_size), state (16), dt_rank (hidden_size / 16), conv_kernel (4), bias (false),
                    conv_bias (true), norms (false: of step, B and C), module ("mixer")
    mamba2          heads, head_dim (64), groups (1), state (128), conv_kernel (4), bias (false), conv_bias (true),
                    norm (true: gated, ahead of the output), module ("mixer")
    mixer           attention, latent_attention, mamba, mamba2 or none: attention where it is given, else the section
                    that is; the other layers of a hybrid say `mixer: mamba2`
    mlp             intermediate_size, gated (true), bias (false), names: gate, up, down, or gate_up for a fused weight
    moe             experts, experts_per_token, intermediate_size, shared_experts (0; each as wide as the others) or
                    shared_intermediate_size, gated (true), bias, router_bias, shared_gate (a learned weight of the
                    shared experts), correction (a learned score per expert), skew (0: Zipf exponent of the experts'
                    popularity), adapt_experts, adapt_router (all-linear reaches them), all false,
                    names: router, gate_up, down, shared, shared_gate, experts (gate_proj+up_proj+down_proj: what
                    adapters call an expert's weights)
    feed_forward    moe where moe is given, else mlp; a dense first layer says `feed_forward: mlp`, a layer of a mixer
                    alone `feed_forward: none`, as state-space layers are where the file gives neither
    names           module paths: layer ("model.layers.{}."), embedding, positions, embedding_norm, final_norm, head
    norm_names      module names in a layer: attention, attention_post, mlp, mlp_post
    generation      repetition_penalty (1), frequency_penalty, presence_penalty (0): the makers' defaults, which engines
                    apply to every logit
    fields          numbers of the user's own, or arithmetic on other fields
    blocks          the user's own blocks, node by node; block: the one that layers are made of

**Layers that differ.** A group repeats one layer, or a pattern of several; what it gives overrides the model's
sections key by key, and a layer of a pattern overrides its group.

    layers:
      - {repeat: 1, mlp: {intermediate_size: 12288}}
      - repeat: 15
        attention: {kv_heads: 4}
        pattern:
          - attention: {window: 1024}
          - attention: {window: 0}
      - {repeat: 2, block: my_block, fields: {state: 128}}

**Blocks.** A list of nodes in launch order; the last one's result, of hidden_size per token, is the block's.

    fields: {inner: 2 * hidden_size}
    blocks:
      my_block:
        - {name: norm, op: norm}
        - {name: up, op: gemm, n: 2 * inner, k: hidden_size, split: column, parts: {x: inner, gate: inner}}
        - {name: mix, op: activation, inputs: [up.x, up.gate]}
        - {name: down, op: gemm, n: hidden_size, k: inner, split: row}
        - {name: out, op: add, inputs: [down, input]}

`inputs` names earlier nodes, `input` (what enters the block) or parts of a result (`up.gate`); by default the node
before. A quantity is a number or arithmetic (`2 * heads * head_dim`; + - * / // % ** min max ceil floor) on
hidden_size, vocab_size, max_positions, the attention's heads, kv_heads, head_dim, value_dim, window, the MLP's
intermediate_size and the user's fields; those marked * also on tokens, sequences, kv_tokens (cache rows seen),
pairs (query-key pairs attended) and logit_rows of the step.

    gemm            n, k, m* (tokens), split (replicated, column, row: how tensor parallelism cuts the weights), units
                    (cut at most so many ways: heads), bias, parts (named slices, {x: width} or {x: {width:, units:}}),
                    pack (gemms of one pack and input are one launch), module (name), targets (words of the adapter
                    targeting table: attn, ffn, query, …), all_linear (true), quantised (true)
    norm            kind (rms), width (hidden_size), rows* (as many as come in), local (false; true for norms per
                    head, whose rows lie on one device each), groups (of columns with a mean of their own, where each
                    device has a slice of every row; 0), units (as a gemm's), module (name)
    add, activation, elementwise
                    elems* (as many as the first input has), steps per element (1, 4, 1)
    rope            heads, kv_heads (heads, or 0 with one input), head_dim; inputs queries, keys; parts q and k
    attention       heads, kv_heads (heads), head_dim, value_dim (head_dim), window (0: all); inputs queries, keys,
                    values; keeps a KV cache
    compute         elems*, flops*, vector_flops*, weights, state* (elements kept from step to step): anything else
    self_attention, latent_attention, mamba, mamba2, mlp, moe
                    graphsim's own layers; keys as in the sections, which they override
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import VECTORS, NormLayer
from graphsim.models.yaml.layers import read_layers
from graphsim.models.yaml.sections import MOST_TOKENS, MOST_VOCABULARY, MOST_WIDTH
from graphsim.ops.precision import Precision, load_precision


def read_model(data: Mapping[str, Any], where: str, name: str = "custom") -> ModelConfig:
    """The model that the data of a model file describes; `name` is used where the data gives none.

    Raises ConfigError that lists every problem with its key, what was found and what is allowed.
    """
    fields = Fields(data, where)
    hidden = fields.integer("hidden_size", most=MOST_WIDTH)
    positions = fields.integer("max_positions", 0, least=0, most=MOST_TOKENS)
    stem, head, prefix = _ends(fields, positions)
    layers = read_layers(fields, hidden)
    details = origin_of(fields, name) | {"precision": _precision(fields)}
    fields.finish()
    return ModelConfig(
        hidden_size=hidden,
        stem=stem,
        layers=layers,
        head=head,
        layer_prefix=prefix,
        max_positions=positions,
        **details,
    )


def origin_of(fields: Fields, name: str) -> dict[str, Any]:
    """What a model file says beside the structure; `aliases` and `ids` are there for whoever looks the model up."""
    for key in ("aliases", "ids"):
        _texts(fields, key)
    return {
        "name": fields.text("name", name),
        "source": fields.text("source", ""),
        "published_parameters": fields.integer("parameters", 0, least=0, most=10**15),
        "notes": tuple(_texts(fields, "notes")),
    }


def _texts(fields: Fields, key: str) -> list[str]:
    entries = fields.sequence(key, most=100)
    if not all(isinstance(entry, str) for entry in entries):
        fields.problem(key, "is not allowed; expected a list of strings")
        return []
    return list(entries)


def _precision(fields: Fields) -> Precision | None:
    ref = fields.text("precision", None)
    if ref is None:
        return None
    try:
        return load_precision(ref)
    except ConfigError as error:
        fields.problems.append(str(error))
        return None


def _penalties(generation: Fields) -> bool:
    """Whether the makers' generation settings punish repetition, however much."""
    factor = generation.number("repetition_penalty", 1.0, least=0.01, most=100.0)
    others = [generation.number(f"{name}_penalty", 0.0, least=-2.0, most=2.0) for name in ("frequency", "presence")]
    return bool(factor != 1.0 or any(others))


def _ends(fields: Fields, positions: int) -> tuple[Stem, Head, str]:
    """Embeddings, output head and the module path of a layer."""
    names = fields.mapping("names")
    vocabulary = fields.integer("vocab_size", most=MOST_VOCABULARY)
    kind = fields.text("norm", "rms", VECTORS)
    learned = fields.flag("learned_positions", False)
    if learned and not positions:
        fields.problem("learned_positions", "needs max_positions; give the number of positions")
    prefix = names.text("layer", "model.layers.{}.")
    if prefix.count("{}") != 1 or not prefix.endswith("."):
        names.problem("layer", "is not allowed; expected a path with one {} that ends with a dot: model.layers.{}.")
    norm = fields.text("embedding_norm", None, VECTORS)
    norm_name = names.text("embedding_norm", "embed_norm")
    stem = Stem(
        vocab_size=vocabulary,
        positions=positions if learned else 0,
        norm=NormLayer(name=norm_name, kind=norm) if norm else None,
        module=names.text("embedding", "model.embed_tokens"),
        position_module=names.text("positions", "model.embed_positions"),
    )
    final = names.text("final_norm", "model.norm")
    head = Head(
        vocab_size=vocabulary,
        tied=fields.flag("tied_embeddings", False),
        bias=fields.flag("head_bias", False),
        soft_cap=fields.number("logit_soft_cap", 0.0, least=0.0, most=1e6) > 0.0,
        norm=NormLayer(name=final, kind=kind) if fields.flag("final_norm", True) else None,
        module=names.text("head", "lm_head"),
        penalties=_penalties(fields.mapping("generation")),
    )
    return stem, head, prefix

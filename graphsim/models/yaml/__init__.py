"""Model files: reading a model's description in YAML into a ModelConfig.

    hidden_size: 4096              # width of the residual stream
    vocab_size: 32000
    layers: 32                     # a number, or a list of groups that differ (below)
    attention: {heads: 32, kv_heads: 8}
    mlp: {intermediate_size: 14336}

Every key, with its default; keys without one are required.

    name            the file's stem           source, notes     free text, list of texts
    parameters      0: the published count    aliases           other spellings of the name
    model_type      model_type of the model's Hugging Face config, by which engines identify it
    ids             Hugging Face ids under which the model is published: [Qwen/Qwen3-32B]
    max_positions   0: longest context        learned_positions false: a table of max_positions is added
    tied_embeddings false                     head_bias         false: bias of the output head
    logit_soft_cap  0: none; 30.0 in Gemma 2
    norm            rms, layer, layer_no_bias, rms_no_weight, layer_no_weight
    norm_placement  pre, post, both           residual          sequential, parallel, parallel_two_norms
    final_norm      true                      embedding_norm    none: kind of a norm after the embedding
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
                    norm (true: gated, before the output), module ("mixer")
    mixer           attention, latent_attention, mamba, mamba2 or none: attention if it is given, else the section that
                    is; the other layers of a hybrid model state `mixer: mamba2`
    mlp             intermediate_size, gated (true), bias (false), names: gate, up, down, or gate_up for a fused weight
    moe             experts, experts_per_token, intermediate_size, shared_experts (0; each as wide as the others) or
                    shared_intermediate_size, gated (true), bias, router_bias, shared_gate (a learned weight of the
                    shared experts), correction (a learned score per expert), skew (0: Zipf exponent of the experts'
                    popularity), adapt_experts, adapt_router (all-linear reaches them), all false,
                    names: router, gate_up, down, shared, shared_gate, experts (gate_proj+up_proj+down_proj: names of
                    an expert's weights for adapters)
    feed_forward    moe if moe is given, else mlp; a dense first layer states `feed_forward: mlp`, a layer with only a
                    mixer `feed_forward: none`, the default of state-space layers if the file gives neither
    names           module paths: layer ("model.layers.{}."), embedding, positions, embedding_norm, final_norm, head
    norm_names      module names in a layer: attention, attention_post, mlp, mlp_post
    generation      repetition_penalty (1), frequency_penalty, presence_penalty (0): the published defaults, which
                    engines apply to every logit
    fields          the user's own numbers, or arithmetic on other fields
    blocks          the user's own blocks, node by node; block: the block that layers consist of
    stem, head      blocks in place of the embedding, and of final norm and output head
    streams         1: number of residual streams, each of hidden_size; more than one requires blocks everywhere
    source_encoder  the encoder of an encoder-decoder (below); encoders: image and audio towers (below)

**Layers that differ.** A group repeats one layer, or a pattern of several; its keys override those of the model's
sections, and the keys of a layer in a pattern override those of its group.

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

`inputs` names earlier nodes, `input` (the block's input) or parts of a result (`up.gate`); by default the preceding
node. A quantity is a number or arithmetic (`2 * heads * head_dim`; + - * / // % ** min max ceil floor) on
hidden_size, vocab_size, max_positions, the attention's heads, kv_heads, head_dim, value_dim, window, the MLP's
intermediate_size and the user's fields; those marked * also on quantities of the step: tokens, sequences, kv_tokens
(cache rows read), pairs (query-key pairs), logit_rows, encoded_rows (encoder rows computed in this step), and, as
means over its sequences, new_tokens, context_tokens (cache rows) and source_tokens (encoder rows).

    gemm            n, k, m* (tokens), split (replicated, column, row: how tensor parallelism splits the weights), units
                    (the most shards: heads), bias, parts (named slices, {x: width} or {x: {width:, units:}}), pack
                    (gemms of one pack and input are one launch), module (name; "" for none: no adapter targets it),
                    targets (keywords of the adapter targeting table: attn, ffn, query, …), all_linear (true), quantised
                    (true), shared (false; true for weights of another node), bare (false; true for a parameter of the
                    block that is not a module), groups (of outputs, with k inputs each; 0), heads (number of heads, one
                    GEMM each, with no other keys than n, k, m, quantised; 0)
    norm            kind (rms), width (hidden_size), rows* (as many as the input has), weights (as the kind has), local
                    (false; true for per-head norms, each of whose rows is on one device), own (false; true for separate
                    weights per head), groups (of columns with separate means, if each device has a slice of every row;
                    0), units (as for gemm), shared (false), module (name)
    embedding       entries, width (hidden_size), tokens* (tokens), whole (false; true for tables of positions, which
                    are not split), shared (false), module (name), or parameter (a table that is not a module); no input
    conv            channels, taps, bias (false): depthwise and causal, along each sequence
    scan            channels, state (values per channel), reads (elements per token without the state), learned (0),
                    matrix (false; true if it is computed by GEMMs)
    add, activation, elementwise
                    elems* (as many as the first input has), steps per element (1, 4, 1), reads* (elements, as many as
                    the inputs have), unchecked (false; true if the inputs have another number, such as one value per
                    row), learned (0; not for add)
    copy            elems* (as many as the input has): moved once
    value           elems*: computed outside the block, such as rotary angles or encoder rows; no input
    hand_on         values that later blocks read in addition to the block's result
    part            elems*: a part of the input
    join            several values combined into one
    take_rows       rows* (the positions that need logits; no cost if all do), width (hidden_size)
    rope            heads, kv_heads (heads, or 0 with one input), head_dim; inputs queries, keys; parts q and k
    kv_cache        kv_heads, width (of keys and values, per head), window (0): a cache separate from attention
    attention       heads, kv_heads (heads), head_dim, value_dim (head_dim), window (0: all), sinks, soft_cap, biased
                    (relative position biases, optionally the last input), all false; inputs queries, keys, values; has
                    a KV cache. Or shares_kv: an earlier layer's cache; input queries. Or kept: the content of a
                    kv_cache, or values expanded from it. Or cross: keys and values of an encoder, computed once and
                    cached. Or cached: false: this step's rows, bidirectional or causal: true; or queries*, rows* (of
                    keys), pairs*
    route           experts, chosen, learned (0); input the router's logits
    gather_tokens, combine_tokens
                    chosen, width (hidden_size): copies rows to their experts (inputs rows, route) and back
    expert_gemm     n, k, experts, chosen, split, bias, module, targets, all_linear (false), rank_factor (1; 2 for fused
                    gate and up), fuses (names of its weights for adapters), separate (false; true for experts that are
                    modules), gated (true), skew (0)
    expert_activation
                    width, chosen, reads (2: gate and up)
    compute         elems*, reads*, flops*, vector_flops*, weights, state* (elements kept from step to step), launches
                    (1), unchecked, note: any other operation; for weights only, `inputs: []`
    self_attention, latent_attention, mamba, mamba2, mlp, moe
                    graphsim's own layers; their keys override those of the sections

**Encoders.** They consist of blocks, whose `tokens` are the encoder's rows; keys without a default are required.

    source_encoder: {hidden_size: 512, stem: encoder_stem, layers: [{repeat: 6, block: encoder_layer}]}
    encoders:
      - name: image_tower
        media: image
        sections:
          - {block: patches, hidden_size: 1024, rows: 577}
          - {layers: [{repeat: 24, block: tower_layer}], names: {layer: "tower.{}."}, hidden_size: 1024, rows: 577}
          - {block: projector, hidden_size: 4096, rows: 576}

    source_encoder  hidden_size, stem, layers (groups that name blocks), tail (none: a block after the layers),
                    output_size (hidden_size: width of the tail's result), rows (0: one per input token; else a fixed
                    number), start_tokens (1: with which the decoder starts), max_positions (0),
                    kind (captured), names: layer ("model.encoder.layers.{}.")
    encoders        a list, each with name (a prefix of its nodes' names), media (image, sound, or none: unused
                    weights), sections; image_size ([1024, 1024]): image size for which the rows are stated, native
                    (false: every image counts as one of that size; true: rows in proportion to the image's pixels);
                    seconds (30): duration of an audio clip; fed (true: its rows are among the prompt's tokens), seen
                    (false; true if layers attend to them instead)
    sections        block, or layers and names; hidden_size and rows of the result per image or clip; beside (false;
                    true if the language model also reads the result, and the next section does not), idle (false; true
                    for unused weights). The first one is a block without an input

A block of the decoder's layers has the encoder's rows as `source` in addition to `input`; values computed from them
have `encoded_rows` rows, which is 0 in a step that does not run the encoder. A tower's blocks have as many `sequences`
as there are images or clips.

A node that holds weights may be `idle: true`: the weights are in memory but not used; it has no inputs.

A stem has no input and gives hidden_size per token, as an embedding does. A head has one gemm with `head: true` (rows:
logit_rows, not quantised, not part of all-linear; `shared: true` if the embeddings are tied) and gives vocab_size per
row of logits; sampling is added automatically.

A block may be two programs, `{prompt: [...], decode: [...]}`: a step in which every sequence generates runs the second,
every other step the first. Both hold the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError
from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.yaml.blocks import Blocks
from graphsim.models.yaml.ends import check_usual_parts, read_ends
from graphsim.models.yaml.layers import read_layers
from graphsim.models.yaml.sections import MOST_TOKENS, MOST_WIDTH
from graphsim.ops.precision import Precision, load_precision

if TYPE_CHECKING:
    from graphsim.models.yaml.encoders import Encoders

MOST_STREAMS = 64


def read_model(data: Mapping[str, Any], where: str, name: str = "custom") -> ModelConfig:
    """The model that the data of a model file describes.

    data: content of the file
    where: name of the file, for messages
    name: the model's name if the data gives none
    Raises ConfigError that lists every problem with its key, the value found and what is allowed.
    """
    fields = Fields(data, where)
    hidden = fields.integer("hidden_size", most=MOST_WIDTH)
    positions = fields.integer("max_positions", 0, least=0, most=MOST_TOKENS)
    streams = fields.integer("streams", 1, most=MOST_STREAMS)
    blocks = Blocks(model=fields, hidden=hidden, streams=streams, fields=fields.mapping("blocks"))
    ends = read_ends(fields, positions, blocks)
    encoders = _encoders(fields, blocks)
    layers = read_layers(fields, hidden, replace(blocks, source=encoders.width if encoders else 0))
    check_usual_parts(fields, blocks.are_all(layers), streams)
    blocks.finish()
    details = origin_of(fields, name) | {"precision": _precision(fields)}
    fields.finish()
    return ModelConfig(
        hidden_size=hidden,
        streams=streams,
        stem=ends.stem,
        layers=layers,
        head=ends.head,
        encoders=encoders.towers if encoders else (),
        source_encoder=encoders.source if encoders else None,
        layer_prefix=ends.prefix,
        max_positions=positions,
        document=copy.deepcopy(dict(data)),
        **details,
    )


def _encoders(fields: Fields, blocks: Blocks) -> Encoders | None:
    """What the file says of encoders; None where it says nothing."""
    if not [key for key in ("source_encoder", "encoders") if fields.raw(key) is not None]:
        return None
    from graphsim.models.yaml.encoders import read_encoders

    return read_encoders(fields, blocks)


def origin_of(fields: Fields, name: str) -> dict[str, Any]:
    """The parts of a model file other than the structure; `aliases` and `ids` are other names of the model."""
    for key in ("aliases", "ids"):
        _texts(fields, key)
    return {
        "name": fields.text("name", name),
        "source": fields.text("source", ""),
        "model_type": fields.text("model_type", ""),
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

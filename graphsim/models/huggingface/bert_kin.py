"""Language models derived from BERT with other layers: X-MOD, XLM, ModernBERT's decoder."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.bert import BertFamily, assembled, generating, layer_of, part
from graphsim.models.huggingface.common import Reader, assemble, pre_norm, read_dims, size, unused, windows
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.bert_ends import SumStem, Table, TransformHead
from graphsim.models.layers.block import Block, Branch, Part, Residual, Unused
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer

_XMOD_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


def xmod(fields: Fields, name: str) -> ModelConfig:
    """RoBERTa with a bottleneck adapter for each language, one of which is used per request (arXiv 2205.06266)."""
    dims, early = read_dims(fields, tied=True), fields.flag("pre_norm", False)
    make = BertFamily(
        kind="xmod", root="roberta", head="lm_head", offset=True,
        before=_XMOD_NORMS if early else None, last="encoder.LayerNorm" if early else "",
    )  # fmt: skip
    languages = list(dict.fromkeys(str(language) for language in fields.sequence("languages")))
    unused(fields, "default_language")
    if not languages:
        fields.problem("languages", "is empty; expected the names of one language or more")
        languages = [""]
    width = max(dims.hidden // size(fields, "adapter_reduction_factor", default=2), 1)
    usual = layer_of(make, dims, fields)
    mlp = usual if early else usual[:-1]  # the norm after the sum follows the bottleneck
    adapters = [_bottleneck(language, width) for language in languages]
    own, reused = fields.flag("adapter_layer_norm", False), fields.flag("adapter_reuse_layer_norm", True)
    norm = NormLayer(name="output.adapter_layer_norm", kind="layer") if own else None
    if reused and not own:
        norm = NormLayer(name="output.LayerNorm", kind="layer_no_weight")
    ahead = fields.flag("ln_before_adapter", True)
    inner: list[Part] = [norm] if norm is not None and ahead else []
    inner.append(_around(adapters[0], None if ahead else norm))
    spare = [Unused(part=_around(adapter, None)) for adapter in adapters[1:]]
    layer = (*mlp, *inner, *spare, *([] if early else usual[-1:]))
    return assembled(fields, name, make, dims, layer)


def _bottleneck(language: str, width: int) -> Mlp:
    module = f"output.adapter_modules.{language}"
    return Mlp(
        intermediate=width, gated=False, bias=True, names=MlpNames(up=f"{module}.dense1", down=f"{module}.dense2")
    )


def _around(layer: Mlp, norm: NormLayer | None) -> Residual:
    return Residual(name="adapter_residual", norm=norm, branches=(Branch(layer=layer),))


def xlm(fields: Fields, name: str) -> ModelConfig:
    """Post-norm layers whose sublayers are in separate module lists (arXiv 1901.07291)."""
    hidden, heads = size(fields, "emb_dim", "hidden_size"), size(fields, "n_heads", "num_attention_heads")
    depth, vocab = size(fields, "n_layers", "num_hidden_layers", most=2000), size(fields, "vocab_size", "n_words")
    positions, languages = size(fields, "max_position_embeddings"), size(fields, "n_langs", default=1)
    if hidden % heads:
        fields.problem("n_heads", f"does not divide emb_dim = {hidden}")
        heads = 1
    if fields.flag("asm", False):
        fields.problem("asm", "is not simulated; expected false")
    if not fields.flag("is_encoder", True):
        fields.problem("is_encoder", "is not simulated; expected true")
    named = AttentionNames(**{part: f"attentions.{{}}.{part}_lin" for part in "qkv"}, o="attentions.{}.out_lin")
    attention = SelfAttention(
        heads=heads, kv_heads=heads, head_dim=hidden // heads, qkv_bias=True, out_bias=True, rope=False, names=named
    )
    mlp = Mlp(intermediate=4 * hidden, gated=False, bias=True, names=MlpNames(up="ffns.{}.lin1", down="ffns.{}.lin2"))
    norms = (("", "layer_norm1.{}"), ("", "layer_norm2.{}"))
    parts = (*part("attn_residual", attention, norms[0]), *part("mlp_residual", mlp, norms[1]))
    told = fields.flag("use_lang_emb", True) and languages > 1
    tables = (Table(module="transformer.lang_embeddings", entries=languages),) if told else ()
    unused(fields, "sinusoidal_embeddings", "causal", "gelu_activation", "start_n_top", "end_n_top")
    return ModelConfig(
        name=name,
        hidden_size=hidden,
        stem=SumStem(
            vocab_size=vocab, positions=positions, tables=tables, module="transformer.embeddings",
            position_module="transformer.position_embeddings",
            norm=NormLayer(name="transformer.layer_norm_emb", kind="layer"),
        ),
        layers=(Block(parts=parts),) * depth,
        head=Head(vocab_size=vocab, tied=fields.flag("tie_word_embeddings", True), bias=True, module="pred_layer.proj"),
        layer_prefix="transformer.",
        max_positions=positions,
        notes=generating(fields, ("WithLMHeadModel",)),
    )  # fmt: skip


def modernbert_decoder(fields: Fields, name: str) -> ModelConfig:
    """Rotary positions, gated MLPs, sliding windows in two of three layers (arXiv 2507.11412)."""
    dims = read_dims(fields, tied=True)
    bias, kind = fields.flag("attention_bias", False), "layer" if fields.flag("norm_bias", False) else "layer_no_bias"
    every = size(fields, "global_attn_every_n_layers", default=3)
    half = size(fields, "local_attention", default=128, least=0) // 2
    told = fields if "sliding_window" in fields else fields.child({**fields.data, "sliding_window": half}, "")
    mlp = Mlp(
        intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False),
        names=MlpNames(fused="mlp.Wi", down="mlp.Wo"),
    )  # fmt: skip
    blocks = []
    for i, window in enumerate(windows(told, dims.layers, lambda i: i % every != 0)):
        attention = SelfAttention(
            heads=dims.heads, kv_heads=dims.heads, head_dim=dims.hidden // dims.heads, window=window, qkv_bias=bias,
            out_bias=bias, names=AttentionNames(q="attn.q_proj", k="attn.k_proj", v="attn.v_proj", o="attn.Wo"),
        )  # fmt: skip
        block = pre_norm(attention, mlp, kind, ("attn_norm", "mlp_norm"))
        first = Residual(name="attn_residual", branches=(Branch(layer=attention),))
        blocks.append(block if i else Block(parts=(first, block.parts[1])))
    norm = NormLayer(name="model.embeddings.norm", kind=kind)
    return assemble(
        name, dims, blocks,
        stem=Stem(vocab_size=dims.vocab, norm=norm, module="model.embeddings.tok_embeddings"),
        head=TransformHead(
            vocab_size=dims.vocab, tied=dims.tied, bias=fields.flag("decoder_bias", True),
            norm=NormLayer(name="model.final_norm", kind=kind), module="decoder", transform="lm_head.dense",
            transform_norm="lm_head.norm", transform_kind=kind,
            transform_bias=fields.flag("classifier_bias", False),
        ),
    )  # fmt: skip


FAMILIES: dict[str, Reader] = {"xmod": xmod, "xlm": xlm, "modernbert-decoder": modernbert_decoder}
"""Readers by `model_type`."""

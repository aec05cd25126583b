"""BERT and similar models: LayerNorm, biases, position and token type embeddings (arXiv 1810.04805).

Their class for language models generates like a decoder, regardless of `is_decoder`, and is simulated as one. The other
classes have bidirectional attention and no KV cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.bert_heads import ANSWERING, answering
from graphsim.models.huggingface.common import Dims, Reader, read_dims, size, unused
from graphsim.models.huggingface.heads import note_of
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.bert_ends import SumStem, Table, TransformHead
from graphsim.models.layers.block import Block, Branch, Part, Residual, Unused
from graphsim.models.layers.cross_attention import CrossAttention
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer

MLP = MlpNames(up="intermediate.dense", down="output.dense")

_HEADS = {
    "cls": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder"),
    "lm_head": ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),
    "rembert": ("cls.predictions.dense", "cls.predictions.LayerNorm", "cls.predictions.decoder"),
    "plain": ("", "", "lm_head.decoder"),
}
"""Modules of the dense layer, the norm and the vocabulary of each kind of head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BertFamily:
    """The differences between these families.

    root: module of the model without its head
    head: a key of the heads
    before: norms before attention and MLP; None for norms after the residual sums
    last: module of the norm after all layers; "" if there is none
    embedding_norm: whether a norm follows the sum of the embeddings
    pooled: whether the class without a head has a linear layer on the first position
    offset: whether the first rows of the position table are unused
    """

    kind: str
    root: str = "bert"
    head: str = "cls"
    before: tuple[str, str] | None = None
    last: str = ""
    embedding_norm: bool = True
    types: bool = True
    rotary: bool = False
    pooled: bool = True
    offset: bool = False

    @property
    def after(self) -> tuple[str, str]:
        """Modules of the norms after the residual sums."""
        return "attention.output.LayerNorm", "output.LayerNorm"

    @property
    def classifier_pooler(self) -> str:
        """Module of the pooler that classifiers use; "" if they have their own dense layer."""
        return f"{self.root}.pooler.dense" if self.pooled and self.head in ("cls", "rembert") else ""


def attention_names(module: str) -> AttentionNames:
    """Module names of the projections of `attention` or `crossattention`."""
    return AttentionNames(
        q=f"{module}.self.query", k=f"{module}.self.key", v=f"{module}.self.value", o=f"{module}.output.dense"
    )


def part(name: str, layer: Layer, norms: tuple[str, str]) -> Iterator[Residual | NormLayer]:
    """A residual branch with a norm before it, or after its sum.

    norms: names of the norm before and of the norm after; one of them is ""
    """
    before, after = (NormLayer(name=norm, kind="layer") if norm else None for norm in norms)
    yield Residual(name=name, norm=before, branches=(Branch(layer=layer),))
    if after:
        yield after


def layer_of(
    make: BertFamily, dims: Dims, fields: Fields, bias: bool = True, *, encodes: bool = False, reads: bool = False
) -> tuple[Part, ...]:
    """The parts of a layer; cross-attention without an encoder is never executed.

    encodes: whether it is an encoder's, with bidirectional attention and no KV cache
    reads: whether there is an encoder to attend to
    """
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.heads,
        head_dim=dims.hidden // dims.heads,
        qkv_bias=bias,
        out_bias=True,
        rope=make.rotary,
        cached=not encodes,
        names=attention_names("attention"),
    )
    first, second = ((name, "") for name in make.before) if make.before else (("", name) for name in make.after)
    cross = tuple(name.replace("attention.", "crossattention.", 1) for name in first)
    parts: list[Part] = list(part("attn_residual", attention, first))
    unused(fields, "cross_attention_hidden_size")
    if fields.flag("add_cross_attention", False) or reads:
        layer = CrossAttention(
            heads=dims.heads, kv_heads=dims.heads, head_dim=dims.hidden // dims.heads, bias=bias,
            out_bias=True, names=attention_names("crossattention"),
        )  # fmt: skip
        crossing = part("cross_residual", layer, (cross[0], cross[1]))
        parts += crossing if reads else [Unused(part=each) for each in crossing]
    mlp = Mlp(intermediate=dims.intermediate, gated=False, bias=True, names=MLP)
    return (*parts, *part("mlp_residual", mlp, second))


def stem_of(make: BertFamily, dims: Dims, fields: Fields) -> SumStem:
    """Embeddings of tokens, positions and token types."""
    module = f"{make.root}.embeddings"
    width = size(fields, "embedding_size", "input_embedding_size", default=dims.hidden)
    kinds = size(fields, "type_vocab_size") if make.types else 0
    tables = [Table(module=f"{module}.token_type_embeddings", entries=kinds)] if kinds else []
    if fields.flag("use_task_id", False):
        tables.append(Table(module=f"{module}.task_type_embeddings", entries=size(fields, "task_type_vocab_size")))
    unused(fields, "task_type_vocab_size")
    if make.rotary:
        head_dim = dims.hidden // dims.heads
        rotary = Table(module=f"{make.root}.encoder.embed_positions", entries=dims.positions, width=head_dim, idle=True)
        tables.append(rotary)
    mapping = "encoder.embedding_hidden_mapping_in" if make.head == "rembert" else "embeddings_project"
    norm = NormLayer(name=f"{module}.LayerNorm", kind="layer")
    projected = width != dims.hidden or make.head == "rembert"
    return SumStem(
        vocab_size=dims.vocab,
        positions=0 if make.rotary else dims.positions,
        width=width,
        norm=norm if make.embedding_norm else None,
        module=f"{module}.word_embeddings",
        position_module=f"{module}.position_embeddings",
        projection=f"{make.root}.{mapping}" if projected else "",
        tables=tuple(tables),
    )


def head_of(make: BertFamily, dims: Dims, fields: Fields, tied: bool) -> TransformHead:
    """The head for language models."""
    dense, norm, vocabulary = _HEADS[make.head]
    last = NormLayer(name=f"{make.root}.{make.last}", kind="layer") if make.last else None
    own = "output_embedding_size" if make.head == "rembert" else "embedding_size"
    if tied and make.head == "rembert" and fields.raw(own) != fields.raw("input_embedding_size"):
        fields.problem("tie_word_embeddings", f"is not allowed; expected false, as {own} is not input_embedding_size")
    double = not tied and make.head in (
        "cls",
        "lm_head",
        "plain",
    )  # the class has a second bias, tied to the linear's or unused
    return TransformHead(
        vocab_size=dims.vocab,
        tied=tied,
        bias=True,
        width=size(fields, own, default=dims.hidden),
        norm=last,
        module=vocabulary,
        transform=dense,
        transform_norm=norm,
        spare=(f"{vocabulary.rpartition('.')[0]}.bias",) if double else (),
        body_pooler="pooler.dense" if make.pooled else "",
    )


def generating(fields: Fields, named: tuple[str, ...] = ("ForCausalLM", "LMHeadModel", "Decoder")) -> tuple[str, ...]:
    """A note if the config is not a decoder's; a class that does not generate is noted as a problem of `fields`."""
    given = fields.sequence("architectures")
    if given and not str(given[0]).endswith(named):
        others = f"one without a head, such as BertModel, or one that ends with {', '.join(ANSWERING)}"
        expected = f"a class that generates, such as BertLMHeadModel, {others}"
        fields.problem("architectures", f"is not simulated; expected {expected}")
    if fields.flag("is_decoder", False):
        return ()
    return (
        "simulated as a decoder, as its class generates; without is_decoder, it keeps no cache and looks both ways",
    )


def encodes(make: BertFamily, fields: Fields) -> bool:
    """Whether the config's class generates nothing and so has bidirectional attention; a decoder is a problem."""
    given = fields.sequence("architectures")
    bare = bool(given) and str(given[0]).endswith("Model") and not str(given[0]).endswith("LMHeadModel")
    answers = bool(given) and make.head != "plain" and str(given[0]).endswith(ANSWERING)
    silent = bare or answers
    if silent and (fields.flag("is_decoder", False) or fields.flag("add_cross_attention", False)):
        fields.problem("is_decoder", "is not simulated for a class that generates nothing; expected false")
    return silent


def bert(fields: Fields, name: str) -> ModelConfig:
    """A model of one of the families in MAKES."""
    make = next(make for make in MAKES if make.kind == fields.data.get("model_type"))
    return assembled(fields, name, make, read_dims(fields, tied=True))


def assembled(
    fields: Fields, name: str, make: BertFamily, dims: Dims, layer: tuple[Part, ...] | None = None
) -> ModelConfig:
    """The model of a family.

    layer: parts of its layers, if they are not the usual ones
    """
    if fields.text("position_embedding_type", "absolute") != "absolute":
        fields.problem("position_embedding_type", "is not simulated; expected 'absolute'")
    silent = layer is None and encodes(make, fields)
    notes = () if silent else generating(fields)
    used = layer_of(make, dims, fields, encodes=silent) if layer is None else layer
    lm_head = head_of(make, dims, fields, dims.tied)
    answer = answering(fields, dims.hidden, lm_head, make.classifier_pooler) if silent else None
    if answer is not None:
        notes = (note_of(answer[0]),)
    dead = fields.integer("pad_token_id", 0, least=0) + 1 if make.offset else 0
    return ModelConfig(
        name=name,
        hidden_size=dims.hidden,
        stem=stem_of(make, dims, fields),
        layers=(Block(parts=used),) * dims.layers,
        head=lm_head if answer is None else answer[1],
        layer_prefix=f"{make.root}.encoder.layer.{{}}.",
        max_positions=max(dims.positions - dead, 0),
        notes=notes,
    )


def big_bird(fields: Fields, name: str) -> ModelConfig:
    """BERT with sparse attention in classes that do not generate (arXiv 2007.14062)."""
    unused(fields, "attention_type", "block_size", "num_random_blocks", "rescale_embeddings")
    make, dims = BertFamily(kind="big_bird"), read_dims(fields, tied=True)
    model = assembled(fields, name, make, dims, layer_of(make, dims, fields, bias=fields.flag("use_bias", True)))
    return replace(model, head=replace(head_of(make, dims, fields, dims.tied), pooler="bert.pooler"))


def bert_generation(fields: Fields, name: str) -> ModelConfig:
    """BERT without token types, with a head that is only the vocabulary projection (arXiv 1907.12461)."""
    make, dims = BertFamily(kind="bert-generation", types=False, head="plain"), read_dims(fields, tied=True)
    return assembled(fields, name, make, dims)


def roc_bert(fields: Fields, name: str) -> ModelConfig:
    """BERT with embeddings of the pronunciation and shape of Chinese characters (ACL 2022, 2022.acl-long.65)."""
    make, dims = BertFamily(kind="roc_bert", root="roc_bert"), read_dims(fields, tied=True)
    if not fields.flag("concat_input", True):
        fields.problem("concat_input", "is not simulated; expected true")
    module = f"{make.root}.embeddings"
    beside = tuple(
        Table(
            module=f"{module}.{short}_embed",
            entries=size(fields, f"{short}_vocab_size"),
            width=size(fields, f"{short}_embed_dim"),
            idle=not fields.flag(f"enable_{short}", True),
        )
        for short in ("pronunciation", "shape")
    )
    model = assembled(fields, name, make, dims)
    stem = replace(stem_of(make, dims, fields), beside=beside, mapped=f"{module}.map_inputs_layer")
    return replace(model, stem=stem)


MAKES = (
    BertFamily(kind="bert"),
    BertFamily(kind="ernie", root="ernie"),
    BertFamily(kind="electra", root="electra", head="electra", pooled=False),
    BertFamily(kind="rembert", root="rembert", head="rembert"),
    BertFamily(kind="roformer", root="roformer", rotary=True, pooled=False),
    BertFamily(kind="megatron-bert", before=("attention.ln", "ln"), last="encoder.ln", embedding_norm=False),
    BertFamily(kind="roberta", root="roberta", head="lm_head", offset=True),
    BertFamily(kind="camembert", root="roberta", head="lm_head", offset=True),
    BertFamily(kind="xlm-roberta", root="roberta", head="lm_head", offset=True),
    BertFamily(kind="data2vec-text", root="data2vec_text", head="lm_head", offset=True),
    BertFamily(
        kind="xlm-roberta-xl", root="roberta", head="lm_head", offset=True, embedding_norm=False,
        before=("attention.self_attn_layer_norm", "LayerNorm"), last="encoder.LayerNorm",
    ),
    BertFamily(
        kind="roberta-prelayernorm", root="roberta_prelayernorm", head="lm_head", offset=True,
        before=("attention.LayerNorm", "intermediate.LayerNorm"), last="LayerNorm",
    ),
)  # fmt: skip
"""Families that `bert` reads."""

FAMILIES: dict[str, Reader] = {
    **dict.fromkeys((make.kind for make in MAKES), bert),
    "big_bird": big_bird,
    "bert-generation": bert_generation,
    "roc_bert": roc_bert,
}
"""Readers by `model_type`."""

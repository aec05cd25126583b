"""The parts before and after the layers of a model file: the usual embedding and output head, or blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphsim.files.reading import Fields
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import VECTORS, NormLayer
from graphsim.models.yaml.blocks import Blocks
from graphsim.models.yaml.overrides import says_nothing
from graphsim.models.yaml.sections import MOST_VOCABULARY

if TYPE_CHECKING:
    from graphsim.models.layers.custom import BlockHead, BlockStem, CustomBlock, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The parts before and after the layers.

    prefix: module path of a layer
    """

    stem: Stem | BlockStem
    head: Head | BlockHead
    prefix: str


def read_ends(fields: Fields, positions: int, blocks: Blocks) -> Ends:
    """Embeddings, output head and the module path of a layer."""
    names = fields.mapping("names")
    prefix = layer_prefix(names, "model.layers.{}.")
    vocabulary = fields.integer("vocab_size", most=MOST_VOCABULARY)
    stem, head = _stem(fields, names, vocabulary, positions), _head(fields, names, vocabulary)
    if name := fields.text("stem", ""):
        says_nothing(fields, ("learned_positions", "embedding_norm"), "stem")
        says_nothing(names, ("embedding", "positions", "embedding_norm"), "stem")
        if program := blocks.stem(name):
            from graphsim.models.layers.custom import BlockStem

            stem = BlockStem(vocab_size=vocabulary, block=program)
    if name := fields.text("head", ""):
        says_nothing(fields, ("tied_embeddings", "head_bias", "logit_soft_cap", "final_norm"), "head")
        says_nothing(names, ("final_norm", "head"), "head")
        if program := blocks.head(name):
            from graphsim.models.layers.custom import BlockHead

            head = BlockHead(vocab_size=vocabulary, block=program, tied=_is_tied(program), penalties=head.penalties)
    return Ends(stem=stem, head=head, prefix=prefix)


def layer_prefix(names: Fields, default: str) -> str:
    """The module path of a layer, with `{}` for its index."""
    prefix: str = names.text("layer", default)
    if prefix.count("{}") != 1 or not prefix.endswith("."):
        names.problem("layer", "is not allowed; expected a path with one {} that ends with a dot: model.layers.{}.")
    return prefix


def _stem(fields: Fields, names: Fields, vocabulary: int, positions: int) -> Stem | BlockStem:
    learned = fields.flag("learned_positions", False)
    if learned and not positions:
        fields.problem("learned_positions", "needs max_positions; give the number of positions")
    norm = fields.text("embedding_norm", None, VECTORS)
    norm_name = names.text("embedding_norm", "embed_norm")
    return Stem(
        vocab_size=vocabulary,
        positions=positions if learned else 0,
        norm=NormLayer(name=norm_name, kind=norm) if norm else None,
        module=names.text("embedding", "model.embed_tokens"),
        position_module=names.text("positions", "model.embed_positions"),
    )


def _head(fields: Fields, names: Fields, vocabulary: int) -> Head | BlockHead:
    kind, final = fields.text("norm", "rms", VECTORS), names.text("final_norm", "model.norm")
    return Head(
        vocab_size=vocabulary,
        tied=fields.flag("tied_embeddings", False),
        bias=fields.flag("head_bias", False),
        soft_cap=fields.number("logit_soft_cap", 0.0, least=0.0, most=1e6) > 0.0,
        norm=NormLayer(name=final, kind=kind) if fields.flag("final_norm", True) else None,
        module=names.text("head", "lm_head"),
        penalties=_penalties(fields.mapping("generation")),
    )


def _penalties(generation: Fields) -> bool:
    """Whether the published generation settings include any repetition, frequency or presence penalty."""
    factor = generation.number("repetition_penalty", 1.0, least=0.01, most=100.0)
    others = [generation.number(f"{name}_penalty", 0.0, least=-2.0, most=2.0) for name in ("frequency", "presence")]
    return bool(factor != 1.0 or any(others))


def _is_tied(program: Program) -> bool:
    """Whether the GEMM of the logits shares the embedding's weights."""
    from graphsim.models.layers.custom import GemmNode, TwoPrograms

    block: CustomBlock = program.prompt if isinstance(program, TwoPrograms) else program
    return any(isinstance(node, GemmNode) and node.projection.head and node.projection.shared for node in block.nodes)


def check_usual_parts(fields: Fields, blocks_alone: bool, streams: int) -> None:
    """Note keys without effect because everything is a block, and streams that the usual parts do not support.

    blocks_alone: whether every layer is a block
    """
    stem, head = fields.text("stem", ""), fields.text("head", "")
    if head and blocks_alone:
        says_nothing(fields, ("norm",), "blocks")
    if streams > 1 and not (stem and head and blocks_alone):
        fields.problem("streams", "needs blocks for stem, head and all layers, which say what they do with each stream")

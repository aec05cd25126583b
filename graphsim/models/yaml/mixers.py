"""The token mixer of a layer in a model file: softmax or latent attention, a state-space layer, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsim.models.layers.base import Layer
from graphsim.models.yaml.overrides import Overrides
from graphsim.models.yaml.sections import MOST_HEADS, MOST_TOKENS, MOST_WIDTH, attention

if TYPE_CHECKING:
    from graphsim.models.layers.mla import LatentAttention
    from graphsim.models.layers.ssm import Mamba, Mamba2

NOTHING = "none"
SECTIONS = ("attention", "latent_attention", "mamba", "mamba2")
STATE_SPACE = ("mamba", "mamba2")


def kind_of(layer: Overrides) -> str:
    """The kind of mixer that the layer states; by default attention if it has a section, else the section given."""
    given = [name for name in SECTIONS if any(name in level for level in layer.levels)]
    return layer.text("mixer", given[0] if given else SECTIONS[0], (*SECTIONS, NOTHING))


def mixer(layer: Overrides, hidden: int) -> Layer | None:
    """The layer's mixer; None if it has none."""
    kind = kind_of(layer)
    if kind == "latent_attention":
        return latent_attention(layer.below(kind))
    if kind == "mamba":
        return mamba(layer.below(kind), hidden)
    if kind == "mamba2":
        return mamba2(layer.below(kind))
    return None if kind == NOTHING else attention(layer.below("attention"), hidden)


def latent_attention(section: Overrides) -> LatentAttention:
    """Multi-head latent attention (arXiv 2405.04434, section 2.1), with an indexer if the section has one."""
    from graphsim.models.layers.mla import LatentAttention

    indexer = None
    if "indexer" in section:
        from graphsim.models.layers.indexer import Indexer

        own = section.below("indexer")
        indexer = Indexer(
            heads=own.integer("heads", most=MOST_HEADS),
            head_dim=own.integer("head_dim", most=MOST_WIDTH),
            chosen=own.integer("chosen", most=MOST_TOKENS),
        )
    return LatentAttention(
        heads=section.integer("heads", most=MOST_HEADS),
        q_rank=section.integer("q_rank", 0, least=0, most=MOST_WIDTH),
        kv_rank=section.integer("kv_rank", most=MOST_WIDTH),
        nope=section.integer("nope", most=MOST_WIDTH),
        rope=section.integer("rope", 0, least=0, most=MOST_WIDTH),
        value_dim=section.integer("value_dim", most=MOST_WIDTH),
        bias=section.flag("bias", False),
        indexer=indexer,
    )


def mamba(section: Overrides, hidden: int) -> Mamba:
    """A selective state-space layer (arXiv 2312.00752)."""
    from graphsim.models.layers.ssm import Mamba

    return Mamba(
        width=section.integer("width", 2 * hidden, most=MOST_WIDTH),
        state=section.integer("state", 16, most=MOST_WIDTH),
        dt_rank=section.integer("dt_rank", -(-hidden // 16), most=MOST_WIDTH),
        taps=section.integer("conv_kernel", 4, most=MOST_HEADS),
        bias=section.flag("bias", False),
        conv_bias=section.flag("conv_bias", True),
        norms=section.flag("norms", False),
        module=section.text("module", "mixer"),
    )


def mamba2(section: Overrides) -> Mamba2:
    """A Mamba-2 layer (arXiv 2405.21060)."""
    from graphsim.models.layers.ssm import Mamba2

    heads = section.integer("heads", most=MOST_HEADS)
    groups = section.integer("groups", 1, most=MOST_HEADS)
    if heads % groups:
        section.problem("groups", f"does not divide heads = {heads}; allowed: a divisor of {heads}")
    return Mamba2(
        heads=heads,
        head_dim=section.integer("head_dim", 64, most=MOST_WIDTH),
        groups=groups,
        state=section.integer("state", 128, most=MOST_WIDTH),
        taps=section.integer("conv_kernel", 4, most=MOST_HEADS),
        bias=section.flag("bias", False),
        conv_bias=section.flag("conv_bias", True),
        norm=section.flag("norm", True),
        module=section.text("module", "mixer"),
    )

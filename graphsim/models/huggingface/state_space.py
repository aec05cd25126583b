"""Pure state-space families: Mamba, Falcon-Mamba, Mamba-2."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Dims, Reader, assemble, size, unused
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.ssm import Mamba, Mamba2


def single(layer: Layer, norm: str = "norm", kind: str = "rms") -> Block:
    """A block with a single sublayer."""
    part = Residual(name="residual", norm=NormLayer(name=norm, kind=kind), branches=(Branch(layer=layer),))
    return Block(parts=(part,))


def backbone(name: str, dims: Dims, blocks: list[Layer], root: str, stem: str, norm: str) -> ModelConfig:
    """A model whose embeddings, layers and final norm are under the module `root`."""
    return assemble(
        name,
        dims,
        blocks,
        stem=Stem(vocab_size=dims.vocab, module=f"{root}.{stem}"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name=f"{root}.{norm}")),
        prefix=f"{root}.layers.{{}}.",
    )


def _headless(fields: Fields, tied: bool) -> Dims:
    """Dimensions of a model without attention."""
    hidden = size(fields, "hidden_size", "d_model")
    return Dims(
        hidden=hidden,
        layers=size(fields, "num_hidden_layers", "n_layer", most=MOST_LAYERS),
        heads=1,
        kv_heads=1,
        head_dim=hidden,
        intermediate=size(fields, "intermediate_size", "d_inner", default=hidden * size(fields, "expand", default=2)),
        vocab=size(fields, "vocab_size"),
        positions=0,
        tied=fields.flag("tie_word_embeddings", tied),
    )


def mamba(fields: Fields, name: str) -> ModelConfig:
    """Mamba and Falcon-Mamba, whose extra norms have no weights."""
    dims = _headless(fields, tied=True)
    rank = fields.data.get("time_step_rank")
    mixer = Mamba(
        width=dims.intermediate,
        state=size(fields, "state_size", default=16),
        dt_rank=-(-dims.hidden // 16) if rank in ("auto", None) else size(fields, "time_step_rank"),
        taps=size(fields, "conv_kernel", default=4),
        bias=fields.flag("use_bias", False),
        conv_bias=fields.flag("use_conv_bias", True),
    )
    return backbone(name, dims, [single(mixer)] * dims.layers, "backbone", "embeddings", "norm_f")


def mamba2(fields: Fields, name: str) -> ModelConfig:
    """Mamba-2."""
    dims = _headless(fields, tied=False)
    unused(fields, "chunk_size", "time_step_rank")
    mixer = Mamba2(
        heads=size(fields, "num_heads"),
        head_dim=size(fields, "head_dim"),
        groups=size(fields, "n_groups", default=1),
        state=size(fields, "state_size", default=128),
        taps=size(fields, "conv_kernel", default=4),
        bias=fields.flag("use_bias", False),
        conv_bias=fields.flag("use_conv_bias", True),
    )
    return backbone(name, dims, [single(mixer)] * dims.layers, "backbone", "embeddings", "norm_f")


FAMILIES: dict[str, Reader] = {"mamba": mamba, "falcon_mamba": mamba, "mamba2": mamba2}
"""Readers by `model_type`."""

"""Reading nodes that are graphsim's own layers: their keys are those of the model's sections, which they override."""

from __future__ import annotations

from collections.abc import Callable

from graphsim.files.reading import Fields
from graphsim.models.layers import custom
from graphsim.models.layers.base import Layer
from graphsim.models.layers.custom.layer import LayerNode
from graphsim.models.yaml import mixers, sections
from graphsim.models.yaml.experts import moe
from graphsim.models.yaml.nodes.reading import Kind, NodeEntry, Reader, Setting
from graphsim.models.yaml.overrides import Overrides


def _layer(section: str, made: Callable[[Overrides, int], Layer]) -> Reader:
    """The reader of a node whose own keys override those of the layer's section."""

    def read(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
        keys = Overrides(fields, *setting.layer.below(section).levels)
        return LayerNode(**entry.given, layer=made(keys, setting.hidden))

    return read


KINDS = {
    "self_attention": Kind(read=_layer("attention", sections.attention)),
    "latent_attention": Kind(read=_layer("latent_attention", lambda keys, _: mixers.latent_attention(keys))),
    "mamba": Kind(read=_layer("mamba", mixers.mamba)),
    "mamba2": Kind(read=_layer("mamba2", lambda keys, _: mixers.mamba2(keys))),
    "mlp": Kind(read=_layer("mlp", lambda keys, _: sections.mlp(keys))),
    "moe": Kind(read=_layer("moe", lambda keys, _: moe(keys))),
}

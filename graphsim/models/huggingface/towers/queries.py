"""Towers that resample rows by learned queries: Idefics2, Aria."""

from __future__ import annotations

from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Longest, Resized
from graphsim.models.huggingface.towers.trunks import trunk_of
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.projector import GatedProjector, Linear, Projector
from graphsim.models.layers.resampler import Perceiver, QueryAttention, QueryProjector


def idefics2(parts: Parts) -> tuple[Encoder, ...]:
    """Native resolution up to the tower's size; a gated MLP and a Perceiver (arXiv 2405.02246)."""
    trunk = trunk_of(parts.nested("vision_config", "idefics2_vision"), "model.vision_model")
    perceiver = parts.nested("perceiver_config", "idefics2_perceiver")
    hidden, queries = parts.hidden, size(perceiver, "resampler_n_latents")
    unused(perceiver, "hidden_size")  # always the language model's
    attention = QueryAttention(
        heads=size(perceiver, "resampler_n_heads"), kv_heads=size(perceiver, "num_key_value_heads"),
        head_dim=size(perceiver, "resampler_head_dim"), joined=True,
    )  # fmt: skip
    resampler = Perceiver(
        queries=queries, depth=size(perceiver, "resampler_depth", most=1000), attention=attention,
        mlp=Mlp(intermediate=4 * hidden),
    )  # fmt: skip
    text = parts.fields.mapping("text_config", lenient=True)
    project = GatedProjector(
        gate="modality_projection.gate_proj", up="modality_projection.up_proj", down="modality_projection.down_proj",
        inner=size(text, "intermediate_size", default=14_336), out=parts.hidden, bias=False,
    )  # fmt: skip
    sections = (
        *trunk.sections,
        Section(layers=(project,), hidden=trunk.width, prefix="model.connector."),
        Section(
            layers=(resampler,), hidden=hidden, rows=Rows(fixed=queries), prefix="model.connector.perceiver_resampler."
        ),
    )
    cut = Longest(patch=trunk.patch, longest=trunk.image[0])
    return (Encoder(name="vision", cut=cut, sections=sections),)


def aria(parts: Parts) -> tuple[Encoder, ...]:
    """A number of queries that depends on the number of patches; a plain MLP."""
    trunk = trunk_of(parts.nested("vision_config", "idefics3_vision"), "model.vision_tower")
    unused(parts.fields, "vision_feature_layer")  # all layers have weights, whichever is used
    given = parts.fields.raw("projector_patch_to_query_dict", {"1225": 128, "4900": 256})
    table = parts.fields.child(given, "projector_patch_to_query_dict", lenient=True)
    listed = [size(table, key) for key in table.data]
    most = size(parts.fields, "max_value_projector_patch_to_query_dict", default=max(listed, default=256))
    patches = (trunk.image[0] // trunk.patch) * (trunk.image[1] // trunk.patch)
    used = size(table, str(patches), default=most)
    heads = size(parts.nested("vision_config", "idefics3_vision"), "num_attention_heads")
    attention = QueryAttention(
        heads=heads, kv_heads=heads, head_dim=trunk.width // heads, inner=True, out_bias=True, further=("linear",),
        names=AttentionNames(q="q_proj", k="k_proj", v="v_proj", o="multihead_attn.out_proj"),
    )  # fmt: skip
    linears = ("feed_forward.linear_in", "feed_forward.linear_out")
    feed = Projector(linears=tuple(Linear(module=name, n=parts.hidden, bias=False) for name in linears))
    last = Section(
        layers=(QueryProjector(queries=most, attention=attention), feed), hidden=trunk.width,
        rows=Rows(fixed=used), prefix="model.multi_modal_projector.",
    )  # fmt: skip
    cut = Resized(image=trunk.image, patch=trunk.patch)
    return (Encoder(name="vision", cut=cut, sections=(*trunk.sections, last)),)


WHOLES: dict[str, Whole] = {
    "idefics2": Whole(encoders=idefics2, prefix="model.text_model."),
    "aria": Whole(encoders=aria),
}
"""Readers by `model_type` of the whole model."""

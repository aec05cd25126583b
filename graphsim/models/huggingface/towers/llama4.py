"""Llama 4's image tower: tiles, a class token after the patches, pixel shuffle into fewer, wider rows."""

from __future__ import annotations

from graphsim.models.huggingface.common import size
from graphsim.models.huggingface.towers.tiles import Tiles
from graphsim.models.huggingface.towers.trunks import MLP, attention_of, depth, layer_of, patch_side, sides
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding, Take
from graphsim.models.layers.projector import Linear, Projector

MOST_TILES = 16
"""Maximum number of tiles of an image (transformers 5.24, `image_processing_llama4.py`, max_patches)."""


def llama4(parts: Parts) -> tuple[Encoder, ...]:
    """Learned and rotary positions; two linear layers, and one to the language model's width."""
    vision = parts.nested("vision_config", "llama4_vision_model")
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    embed = PatchEmbedding(
        module="patch_embedding.linear", inputs=size(vision, "num_channels", default=3) * patch**2, linear=True,
        further=1, further_name="class_embedding",
        positions=(image[0] // patch) ** 2 + 1, position_name="positional_embedding_vlm",
        norm=NormLayer(name="layernorm_pre", kind="layer"),
    )  # fmt: skip
    attention = attention_of(
        vision, rope=True, names=AttentionNames(**{part: f"self_attn.{part}_proj" for part in "qkvo"})
    )
    inner = size(vision, "intermediate_size")
    mlp = Mlp(intermediate=inner, gated=False, bias=True, names=MLP)
    layer = layer_of(attention, mlp, ("input_layernorm", "post_attention_layernorm"))
    ratio = vision.number("pixel_shuffle_ratio", 0.5, least=0.01, most=1.0)
    shared = round(1.0 / ratio**2)
    out = size(vision, "projector_output_dim")
    if size(vision, "projector_input_dim") != out:
        vision.problem("projector_input_dim", f"is not allowed; expected projector_output_dim, {out}")
    adapter = Projector(
        linears=(
            Linear(module="fc1", n=size(vision, "projector_input_dim"), bias=False),
            Linear(module="fc2", n=out, bias=False),
        )
    )  # fmt: skip
    project = Projector(linears=(Linear(module="linear_1", n=parts.hidden, bias=False),))
    rows, further = Rows(shared=shared), Rows(further=1)
    module = "vision_model."
    sections = (
        Section(layers=(embed,), hidden=width, rows=further, prefix=module),
        Section(layers=(layer,) * depth(vision), hidden=width, rows=further, prefix=f"{module}model.layers.{{}}."),
        Section(layers=(NormLayer(name="layernorm_post", kind="layer"),), hidden=width, rows=further, prefix=module),
        # transformers takes the MLP's width as that of the shuffled rows
        Section(layers=(Take(), adapter), hidden=inner, rows=rows, prefix=f"{module}vision_adapter.mlp."),
        Section(layers=(Take(), project), hidden=size(vision, "vision_output_dim"), rows=rows,
                prefix="multi_modal_projector."),
    )  # fmt: skip
    return (Encoder(name="vision", cut=Tiles(tile=image, patch=patch, most=MOST_TILES), sections=sections),)


WHOLES: dict[str, Whole] = {
    "llama4": Whole(encoders=llama4, prefix="language_model.", bare=False, alone=("Llama4ForCausalLM",)),
}
"""Readers by `model_type` of the whole model."""

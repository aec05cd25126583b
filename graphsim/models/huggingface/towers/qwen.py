"""Vision transformers of Qwen2-VL and its successors: native resolution, patches merged by an MLP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import indices, size, unused
from graphsim.models.huggingface.towers.cuts import Native
from graphsim.models.huggingface.towers.trunks import attention_of, depth, layer_of, patch_side
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding
from graphsim.models.layers.projector import Linear, Projector

FUSED = AttentionNames(fused="attn.qkv", o="attn.proj", q_norm="attn.q_norm", k_norm="attn.k_norm")
NORMS = ("norm1", "norm2")

QWEN2_PIXELS, QWEN3_PIXELS = (3_136, 12_845_056), (65_536, 16_777_216)
"""Least and most pixels of an image: `preprocessor_config.json` of Qwen2-VL-7B-Instruct and Qwen3-VL-8B-Instruct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Common dimensions: widths, side of a patch, number of patches along a side that are merged into one row."""

    width: int
    patch: int
    merge: int
    inputs: int
    out: int

    @classmethod
    def read(cls, vision: Fields, width: str = "hidden_size", out: str = "out_hidden_size") -> Frame:
        """A frame from a vision config.

        width, out: keys of the widths of the tower and of its output
        """
        unused(vision, "spatial_patch_size", "tokens_per_second")
        patch, frames = patch_side(vision), size(vision, "temporal_patch_size", default=2)
        channels = size(vision, "in_channels", "in_chans", "num_channels", default=3)
        return cls(
            width=size(vision, width), patch=patch, merge=size(vision, "spatial_merge_size", default=2),
            inputs=channels * frames * patch**2, out=size(vision, out),
        )  # fmt: skip

    @property
    def rows(self) -> Rows:
        """The rows after the merger."""
        return Rows(shared=self.merge**2)

    @property
    def merged(self) -> int:
        """Width of the concatenated patches that become one row."""
        return self.width * self.merge**2

    def cut(self, pixels: tuple[int, int]) -> Native:
        """A cut at native resolution.

        pixels: minimum and maximum number of pixels of an image
        """
        return Native(patch=self.patch, merge=self.merge, least=pixels[0], most=pixels[1])

    def merger(self, module: str, norm: NormLayer, names: tuple[str, str]) -> tuple[Section, Section]:
        """A norm on each patch, and two linear layers on concatenated patches."""
        linears = (Linear(module=names[0], n=self.merged), Linear(module=names[1], n=self.out))
        return (
            Section(layers=(norm,), hidden=self.width, prefix=module),
            Section(layers=(Projector(linears=linears),), hidden=self.merged, rows=self.rows, prefix=module),
        )


def qwen2_vl(parts: Parts) -> tuple[Encoder, ...]:
    """LayerNorm, plain MLPs (arXiv 2409.12191, section 2.1). The config's `hidden_size` is the language model's."""
    vision = parts.nested("vision_config", "qwen2_vl_vision")
    frame = Frame.read(vision, width="embed_dim", out="hidden_size")
    attention = replace(attention_of(_as(vision, frame.width)), rope=True, names=FUSED)
    ratio = vision.number("mlp_ratio", 4.0, least=0.01, most=1000.0)
    mlp = Mlp(
        intermediate=int(frame.width * ratio), gated=False, bias=True,
        names=MlpNames(up="mlp.fc1", down="mlp.fc2"),
    )  # fmt: skip
    layers = (layer_of(attention, mlp, NORMS),) * depth(vision)
    merger = frame.merger("model.visual.merger.", NormLayer(name="ln_q", kind="layer"), ("mlp.0", "mlp.2"))
    return (_encoder(frame, QWEN2_PIXELS, PatchEmbedding(module="proj", inputs=frame.inputs), layers, merger),)


def _as(vision: Fields, width: int) -> Fields:
    """The same config with rows of this width."""
    return vision.child({**vision.data, "hidden_size": width}, vision.path, lenient=True)


def qwen2_5_vl(parts: Parts) -> tuple[Encoder, ...]:
    """RMSNorm, gated MLPs, windows in most layers (arXiv 2502.13923, section 2.1)."""
    vision = parts.nested("vision_config", "qwen2_5_vl_vision")
    return (windowed(vision, "model.visual."),)


def windowed(vision: Fields, module: str, names: AttentionNames = FUSED, end: tuple[Section, ...] = ()) -> Encoder:
    """Qwen2.5-VL's tower; it may have fewer key heads (EXAONE 4.5).

    end: sections after its merger
    """
    frame = Frame.read(vision)
    heads = size(vision, "num_heads")
    whole = indices(vision, "fullatt_block_indexes")
    # windows hold whole merged rows (transformers 5.24, `vision_utils.py`, get_vision_window_index)
    side = size(vision, "window_size") // frame.merge // frame.patch * frame.merge
    kv_heads = size(vision, "num_key_value_heads", default=heads)
    attention = replace(attention_of(vision), rope=True, names=names, kv_heads=kv_heads)
    gates = MlpNames(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), bias=True, names=gates)
    layers = tuple(
        layer_of(attention if i in whole else replace(attention, side=side), mlp, NORMS, "rms")
        for i in range(depth(vision))
    )
    merger = frame.merger(f"{module}merger.", NormLayer(name="ln_q"), ("mlp.0", "mlp.2"))
    embed = PatchEmbedding(module="proj", inputs=frame.inputs)
    return _encoder(frame, QWEN2_PIXELS, embed, layers, (*merger, *end), module)


def qwen3_vl(parts: Parts) -> tuple[Encoder, ...]:
    """Learned and rotary positions; rows of some layers are added to the language model's first layers (DeepStack).

    arXiv 2511.21631, section 2.
    """
    vision = parts.nested("vision_config", "qwen3_vl_vision")
    return (positioned(vision, len(vision.sequence("deepstack_visual_indexes"))),)


def qwen3_5(parts: Parts) -> tuple[Encoder, ...]:
    """Qwen3-VL's tower without DeepStack."""
    vision = parts.nested("vision_config", "qwen3_5_vision")
    unused(vision, "deepstack_visual_indexes")
    return (positioned(vision, 0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merger:
    """Modules of Qwen3-VL's mergers.

    beside: modules of mergers whose rows are added to the language model's first layers
    """

    norm: str = "norm"
    linears: tuple[str, str] = ("linear_fc1", "linear_fc2")
    beside: str = "deepstack_merger_list"


def positioned(vision: Fields, deeper: int, merges: Merger = Merger(), module: str = "model.visual.") -> Encoder:
    """Qwen3-VL's tower.

    deeper: number of layers whose rows are added to the language model's first layers
    """
    frame = Frame.read(vision)
    attention = replace(attention_of(vision), rope=True, names=FUSED)
    names = MlpNames(up="mlp.linear_fc1", down="mlp.linear_fc2")
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=names)
    layers = (layer_of(attention, mlp, NORMS),) * depth(vision)
    positions = size(vision, "num_position_embeddings")
    embed = PatchEmbedding(
        module="patch_embed.proj", inputs=frame.inputs, bias=True, positions=positions, position_module="pos_embed"
    )
    merger = frame.merger(f"{module}merger.", NormLayer(name=merges.norm, kind="layer"), merges.linears)
    beside = tuple(_deeper(frame, merges, f"{module}{merges.beside}.{i}.") for i in range(deeper))
    found = _encoder(frame, QWEN3_PIXELS, embed, layers, merger, module, start="")
    return replace(found, sections=(*found.sections[:2], *beside, *found.sections[2:]))


def _deeper(frame: Frame, merges: Merger, module: str) -> Section:
    """A merger whose norm is applied to the concatenated patches."""
    linears = (Linear(module=merges.linears[0], n=frame.merged), Linear(module=merges.linears[1], n=frame.out))
    layer = Projector(norm=NormLayer(name=merges.norm, kind="layer"), linears=linears)
    return Section(layers=(layer,), hidden=frame.merged, rows=frame.rows, prefix=module, beside=True)


def _encoder(
    frame: Frame,
    pixels: tuple[int, int],
    embed: Layer,
    layers: tuple[Layer, ...],
    end: tuple[Section, ...],
    module: str = "model.visual.",
    *,
    start: str = "patch_embed.",
) -> Encoder:
    return Encoder(
        name="vision",
        cut=frame.cut(pixels),
        sections=(
            Section(layers=(embed,), hidden=frame.width, prefix=f"{module}{start}"),
            Section(layers=layers, hidden=frame.width, prefix=f"{module}blocks.{{}}."),
            *end,
        ),
    )


def exaone4_5(parts: Parts) -> tuple[Encoder, ...]:
    """Qwen2.5-VL's tower with grouped key heads."""
    return (windowed(parts.nested("vision_config", "exaone4_5_vision"), "model.visual."),)


def hyperclovax(parts: Parts) -> tuple[Encoder, ...]:
    """Qwen2.5-VL's tower and one linear layer (transformers 5.24, `hyperclovax_vision_v2`)."""
    vision = parts.nested("vision_config", "qwen2_5_vl_vision")
    frame = Frame.read(vision)
    project = Projector(linears=(Linear(module="projector", n=parts.hidden),))
    end = Section(layers=(project,), hidden=frame.out, rows=frame.rows, prefix="model.")
    return (windowed(vision, "model.vision_model.", end=(end,)),)


_READERS: dict[str, Callable[[Parts], tuple[Encoder, ...]]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": qwen3_5,
    "exaone4_5": exaone4_5,
    "hyperclovax_vision_v2": hyperclovax,
}

_ALONE = {"qwen3_5": ("Qwen3_5ForCausalLM",), "qwen3_5_moe": ("Qwen3_5MoeForCausalLM",)}

WHOLES: dict[str, Whole] = {
    kind: Whole(encoders=reader, alone=_ALONE.get(kind, ()), either_ties=kind in ("qwen2_vl", "qwen2_5_vl"))
    for kind, reader in _READERS.items()
}
"""Readers by `model_type` of the whole model."""

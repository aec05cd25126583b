"""Beam: gated attention that slides in most layers, norms on both sides of each part, experts behind a dense start."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, read_dims, size, unused, windows, wrapped
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import experts_of, mlp_kinds
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe


def beam(fields: Fields, name: str) -> ModelConfig:
    """A wide gate with a learned number per head (transformers 5.24, `BeamConfig`).

    PEFT 0.21 takes the names of an MLP's projections for those of experts in an older checkpoint, and then leaves out
    what bears them.
    """
    dims = read_dims(fields)
    last = dims.layers - 1
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        adapt_experts=True,
        adapt_router=True,
    )
    dense = Mlp(intermediate=dims.intermediate, linear=False)
    names = AttentionNames(gate="self_attn.gate_proj")
    blocks: list[Layer] = [
        wrapped(
            replace(
                attention_of(fields, dims, window, qk=QkNorm.HEAD),
                gated=True,
                gate_offset=True,
                adapt_gate=False,
                names=names,
            ),
            dense if kind == "dense" else moe,
            before=("input_layernorm", "pre_feedforward_layernorm"),
            after=("post_attention_layernorm", "post_feedforward_layernorm"),
        )
        for window, kind in zip(
            windows(fields, dims.layers, lambda i: (i + 1) % 6 != 0 and i != last),
            mlp_kinds(fields, dims.layers, 3),
            strict=False,
        )
    ]
    unused(fields, "mlp_only_layers", "decoder_sparse_step", "use_sliding_window", "max_window_layers")
    return assemble(name, dims, blocks)


FAMILIES: dict[str, Reader] = {"beam": beam}
"""Readers by `model_type`."""

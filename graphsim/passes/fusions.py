"""The passes of an engine's fusions, as stated in its profile (`graphsim.lora.fusions`)."""

from __future__ import annotations

from graphsim.graph import Pass
from graphsim.lora.profile import EngineProfile
from graphsim.passes.fuse_experts import SharedInKernel, SharedStream
from graphsim.passes.fuse_norms import FuseNorms
from graphsim.passes.pack_more import PackMore
from graphsim.passes.quantise_ahead import QuantiseAhead
from graphsim.passes.reduce_together import ReduceTogether


def packed_more(engine: EngineProfile | None) -> tuple[Pass, ...]:
    """The packing of an engine in addition to that of the model classes."""
    if engine is None or not (engine.fusions.latent_projections or engine.fusions.delta_projections):
        return ()
    return (PackMore(latent=engine.fusions.latent_projections, delta=engine.fusions.delta_projections),)


def fusions(engine: EngineProfile, *, model: str, architecture: str, prompts: bool) -> tuple[Pass, ...]:
    """The passes after an engine's kernels for adapters, in order.

    model: its name
    architecture: of the device, "" where there is none
    prompts: whether the step may have prompts, whose shared experts leave no room for concurrent kernels
    """
    passes: list[Pass] = []
    kept = engine.fusions
    shared = kept.shared_experts_on(architecture) if engine.shared_experts == "behind" else "apart"
    if kept.expert_all_reduce:
        passes.append(ReduceTogether())
    if shared == "kernel":
        passes.append(SharedInKernel())
    if shared != "apart" and not prompts:
        passes.append(SharedStream())
    if kept.routes_in_experts(architecture):
        from graphsim.passes.fuse_blocks import FuseRouting

        passes.append(FuseRouting())
    if kept.writes_rope(architecture):
        from graphsim.passes.fuse_blocks import FuseRope

        passes.append(FuseRope())
    if kept.static_quantisation:
        passes.append(QuantiseAhead())
    if kept.residual_norms:
        limits = kept.message_limits(model, architecture)
        passes.append(FuseNorms(limits=limits, rows=kept.all_reduce_norm_rows))
    return tuple(passes)

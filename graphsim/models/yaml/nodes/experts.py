"""Reading the nodes of an MoE layer."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.layers import custom
from graphsim.models.layers.custom.experts import ExpertActivationNode, ExpertGemmNode, PermuteNode, RouteNode
from graphsim.models.yaml.names import whole
from graphsim.models.yaml.nodes.reading import SPLITS, Kind, NodeEntry, Reader, Setting, targets

MOST_FUSED = 16
MOST_SKEW = 10.0


def _route(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    experts, chosen = _experts(fields, setting)
    learned = whole(fields, "learned", setting.known, default=0, least=0)
    return RouteNode(**entry.given, experts=experts, chosen=chosen, learned=learned)


def _experts(fields: Fields, setting: Setting) -> tuple[int, int]:
    experts, chosen = (whole(fields, key, setting.known) for key in ("experts", "chosen"))
    if chosen > experts:
        fields.problem("chosen", f"exceeds experts = {experts}; allowed: 1 to {experts}")
    return experts, min(chosen, experts)


def _permute(gather: bool) -> Reader:
    def read(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
        return PermuteNode(
            **entry.given,
            chosen=whole(fields, "chosen", setting.known),
            width=whole(fields, "width", setting.known, default=setting.hidden),
            gather=gather,
        )

    return read


def _expert_gemm(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    known = setting.known
    experts, chosen = _experts(fields, setting)
    return ExpertGemmNode(
        **entry.given,
        n=whole(fields, "n", known),
        k=whole(fields, "k", known),
        experts=experts,
        chosen=chosen,
        split=SPLITS[fields.text("split", "replicated", SPLITS)],
        bias=fields.flag("bias", False),
        module=fields.text("module", entry.name),
        tags=targets(fields),
        linear=fields.flag("all_linear", False),
        rank_factor=whole(fields, "rank_factor", known, default=1),
        fuses=_fused(fields),
        separate=fields.flag("separate", False),
        gated=fields.flag("gated", True),
        skew=fields.number("skew", 0.0, least=0.0, most=MOST_SKEW),
    )


def _fused(fields: Fields) -> tuple[str, ...]:
    names = fields.sequence("fuses", most=MOST_FUSED)
    if not all(isinstance(name, str) and name for name in names):
        fields.problem("fuses", "is not allowed; expected names, such as [gate_proj, up_proj]")
        return ()
    return tuple(names)


def _expert_activation(fields: Fields, entry: NodeEntry, setting: Setting) -> custom.Node:
    return ExpertActivationNode(
        **entry.given,
        width=whole(fields, "width", setting.known),
        chosen=whole(fields, "chosen", setting.known),
        reads=whole(fields, "reads", setting.known, default=2),
    )


KINDS = {
    "route": Kind(read=_route, weights=True),
    "gather_tokens": Kind(read=_permute(gather=True)),
    "expert_gemm": Kind(read=_expert_gemm, weights=True),
    "expert_activation": Kind(read=_expert_activation),
    "combine_tokens": Kind(read=_permute(gather=False)),
}

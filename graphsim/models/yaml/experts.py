"""The section of a model file that describes a mixture of experts."""

from __future__ import annotations

from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.yaml.overrides import Overrides
from graphsim.models.yaml.sections import MOST_HEADS, MOST_WIDTH


def moe(section: Overrides) -> Moe:
    """The MoE layer that the section describes."""
    experts = section.integer("experts", most=MOST_HEADS)
    chosen = section.integer("experts_per_token", most=MOST_HEADS)
    if chosen > experts:
        section.problem("experts_per_token", f"exceeds experts = {experts}; allowed: 1 to {experts}")
    names, usual = section.below("names"), MoeNames()
    intermediate = section.integer("intermediate_size", most=MOST_WIDTH)
    shared = section.integer("shared_experts", 0, least=0, most=MOST_HEADS) * intermediate
    return Moe(
        experts=experts,
        chosen=min(chosen, experts),
        intermediate=intermediate,
        gated=section.flag("gated", True),
        shared=_shared(section, names, section.integer("shared_intermediate_size", shared, least=0, most=MOST_WIDTH)),
        shared_gate=section.flag("shared_gate", False),
        correction=section.flag("correction", False),
        router_bias=section.flag("router_bias", False),
        bias=section.flag("bias", False),
        skew=section.number("skew", 0.0, 0.0, 10.0),
        adapt_experts=section.flag("adapt_experts", False),
        adapt_router=section.flag("adapt_router", False),
        names=MoeNames(
            router=names.text("router", usual.router),
            gate_up=names.text("gate_up", usual.gate_up),
            down=names.text("down", usual.down),
            shared_gate=names.text("shared_gate", usual.shared_gate),
            experts=_expert_names(names, usual.experts),
        ),
    )


def _expert_names(names: Overrides, usual: tuple[str, str, str]) -> tuple[str, str, str]:
    """Names of an expert's gate, up and down weights for adapters, joined by +."""
    found = names.text("experts", "+".join(usual)).split("+")
    if len(found) != 3 or not all(found):
        names.problem("experts", "is not allowed; expected three names joined by +, such as w1+w3+w2")
        return usual
    return found[0], found[1], found[2]


def _shared(section: Overrides, names: Overrides, width: int) -> Mlp | None:
    """The shared experts as one MLP that processes all tokens; None if there are none."""
    path = names.text("shared", "mlp.shared_experts")
    if not width:
        return None
    below = MlpNames(gate=f"{path}.gate_proj", up=f"{path}.up_proj", down=f"{path}.down_proj")
    return Mlp(intermediate=width, gated=section.flag("gated", True), names=below)

"""Lowering: the passes that turn the three logical nodes of an adapter into the kernels that an engine launches.

They run after sharding and packing.
"""

from __future__ import annotations

from graphsim.errors import ConfigError, choices_text
from graphsim.graph import Pass
from graphsim.lora.schemes import SCHEMES
from graphsim.ops import Sharding
from graphsim.passes.ends import FuseTable
from graphsim.passes.engine import Engine
from graphsim.passes.fused import Fuse
from graphsim.passes.fused_experts import FuseExperts
from graphsim.passes.modules import CallModules, WriteExperts


def lowering(engine: Engine) -> tuple[Pass, ...]:
    """An engine's passes; none if its kernels are the logical nodes, as those of a merged adapter always are."""
    if engine.lora.strategy != "dynamic":
        return ()
    if engine.profile.kernels == "fused":
        _require_in_place(engine)
        experts = (FuseExperts(engine=engine),) if engine.profile.experts.kernels == "blocks" else ()
        return (Fuse(engine=engine), *experts, FuseTable(engine=engine))
    if engine.profile.kernels == "eager_modules":
        return WriteExperts(engine=engine), CallModules(engine=engine)
    return ()


def _require_in_place(engine: Engine) -> None:
    """Raise ConfigError if B's slices must be gathered before they are added: fused kernels add in the expand."""
    name = engine.lora.chosen_scheme or engine.tp_scheme
    scheme = SCHEMES[name]
    if scheme.row_b is Sharding.COLUMN and not scheme.row_in_place:
        allowed = choices_text(name, [other for other in SCHEMES if other != name])
        raise ConfigError(
            f"lora.tp_scheme = '{name}' is not allowed with engine '{engine.profile.name}': its kernels add in place; "
            f"{allowed}"
        )

"""A disaggregated server from the arguments of `gs.serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError
from graphsim.serving.disaggregated.transfer import Transfer
from graphsim.serving.engine_limits import EngineLimits
from graphsim.units import checked_number, short

if TYPE_CHECKING:
    from graphsim.serving.disaggregated.scenario import DisaggregatedServing
    from graphsim.serving.scenario import Serving


def is_apart(prefill: Any, prefill_replicas: Any, **others: Any) -> bool:
    """Whether prompts have separate workers.

    others: arguments that are meaningful only then. Raises ConfigError for arguments that do not go together.
    """
    count = checked_number("serve: prefill_replicas", prefill_replicas, 0, one=True)
    if prefill is not None and not isinstance(prefill, Deployment):
        raise ConfigError(f"serve: prefill = {short(prefill)} is not a Deployment; expected gs.Deployment(…)")
    for name, value in {"prefill": prefill, **others}.items():
        if value is not None and not count:
            raise ConfigError(
                f"serve: {name} is given, but prefill_replicas = 0; say how many prefill workers there are"
            )
    return bool(count)


def apart_from(
    decode: Serving, prefill: Deployment | None, prefill_replicas: int, replicas: int, *,
    prefill_limits: EngineLimits | None, router: str, transfer: Any,
) -> DisaggregatedServing:  # fmt: skip
    """The server whose decode workers are given. prefill: a prefill worker, the same as a decode worker by default.

    Raises ConfigError for invalid arguments, or pools that cannot work together.
    """
    from graphsim.serving.disaggregated.scenario import DisaggregatedServing

    count = checked_number("serve: replicas", replicas, 1, one=True)
    if transfer is not None and not isinstance(transfer, Transfer):
        raise ConfigError(f"serve: transfer = {short(transfer)} is not a Transfer; expected gs.Transfer(bytes_per_s=…)")
    if prefill_limits is not None and not isinstance(prefill_limits, EngineLimits):
        raise ConfigError(f"serve: prefill_limits = {short(prefill_limits)} is not an EngineLimits")
    ahead = decode.deployment if prefill is None else prefill
    if ahead.hardware is None:
        raise ConfigError("serve: prefill has no hardware; expected gs.Deployment(model, hardware)")
    if np.any(np.asarray(ahead.parallelism.dp) > 1):
        raise ConfigError(
            f"serve: prefill: parallelism.dp = {short(ahead.parallelism.dp)} is not simulated; give "
            "prefill_replicas instead"
        )
    return DisaggregatedServing(
        deployment=decode.deployment, traffic=decode.traffic, limits=decode.limits, asked=decode.asked,
        host=decode.host, prefill=ahead, prefill_replicas=int(prefill_replicas), replicas=count,
        prefill_limits=prefill_limits, router=router, transfer=Transfer() if transfer is None else transfer,
        speculation=decode.speculation,
    )  # fmt: skip

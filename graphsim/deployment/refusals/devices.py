"""What engines refuse of devices.

Fallbacks to other kernels (weight-only ones for fp8 on Ampere, nvfp4 on Hopper) are not refusals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphsim.deployment.refusals.broken import Broken
from graphsim.lora.profile import EngineProfile

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment


def of_devices(deployment: Deployment, profile: EngineProfile) -> Iterator[Broken]:
    """Devices that the engine does not start on at all, and formats of activations that it does not start with."""
    device = deployment.hardware
    if device is None:
        return
    told = {"architecture": device.architecture}
    limit = profile.limits.get("device")
    if limit and device.architecture in limit.architectures:
        yield Broken(rule="device", where=True, asked="hardware", value=device.name, told=told, allowed="another one")
    limit = profile.limits.get("bf16")
    if limit and device.architecture in limit.architectures and deployment.precision.activations.name == "bf16":
        yield Broken(
            rule="bf16", where=True, asked="precision", value=deployment.precision.name,
            told=told | {"device": device.name}, allowed="fp16 on '{device}'",
        )  # fmt: skip

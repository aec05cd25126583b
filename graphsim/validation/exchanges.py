"""What exchanging tokens between experts' devices takes beyond its price, of kernels that were not measured alone."""

from __future__ import annotations

from graphsim.deployment.deployment import Deployment
from graphsim.graph import walk
from graphsim.models.phase import decode
from graphsim.passes.two_batches import exchanges
from graphsim.validation.served_rows import Pool, ServedRow

MORI_LAYER_S = 0.486e-3
"""Of each layer with experts in a step of generation, where SGLang 0.5.6 exchanges tokens by MoRI on AMD's devices
(`--moe-a2a-backend mori`, whose buffers hold the most tokens that may come, not those that come).

The median of what is missing of mean_tpot_ms, per layer, over the nine rows of `serving/inferencemax` with attention
dealt out to eight replicas on one node and no speculation (0.32 to 0.54 ms). Rows with speculation had no part in it.
"""


def exchange_s(row: ServedRow, pool: Pool, deployment: Deployment) -> float:
    """Seconds that a step of generation takes beyond its price; 0 except for SGLang's MoRI."""
    amd = deployment.device.architecture.startswith("cdna")
    if row.engine != "sglang" or not amd or pool.replicas < 2:
        return 0.0
    stages = deployment.stages(decode(1.0, 1.0))
    ways = sum(float(times) for graph in stages for _, op, times in walk(graph) if exchanges(op))
    return MORI_LAYER_S * ways / 2.0

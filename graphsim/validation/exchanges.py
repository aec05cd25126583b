"""Extra time of expert-parallel token exchange, for kernels that were not measured separately."""

from __future__ import annotations

from graphsim.deployment.deployment import Deployment
from graphsim.graph import walk
from graphsim.models.phase import decode
from graphsim.ops import Route
from graphsim.passes.two_batches import exchanges
from graphsim.validation.served_rows import Pool, ServedRow

MORI_LAYER_S = 0.486e-3
"""Seconds per MoE layer of a decode step in which SGLang 0.5.6 exchanges tokens by MoRI on AMD's devices
(`--moe-a2a-backend mori`, whose buffers hold the largest possible number of tokens, not the actual one).

The median of measured minus predicted mean_tpot_ms, per layer, over the nine rows of `serving/inferencemax` with
attention distributed over eight replicas on one node and no speculation (0.32 to 0.54 ms). Rows with speculation were
not used.
"""

MORI_GROUP_LAYER_S = 0.048e-3
"""The same where the experts are distributed over the ranks of one tensor-parallel group (`ep` = `tp` = 8).

The median over the nine such rows without speculation (0.027 to 0.076 ms). On servers that are not disaggregated, whose
experts are sharded instead, decode steps of the same batch are 2.5 to 5.5 ms shorter.
"""


def exchange_s(row: ServedRow, pool: Pool, deployment: Deployment) -> float:
    """Seconds to add to the price of a decode step; 0 except under SGLang on AMD devices."""
    if row.engine != "sglang" or not deployment.device.architecture.startswith("cdna") or pool.ep < 2:
        return 0.0
    steps = [walk(graph) for graph in deployment.stages(decode(1.0, 1.0))]
    if pool.replicas > 1:
        return MORI_LAYER_S * sum(float(times) for step in steps for _, op, times in step if exchanges(op)) / 2.0
    return MORI_GROUP_LAYER_S * sum(float(times) for step in steps for _, op, times in step if isinstance(op, Route))

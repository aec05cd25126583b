"""ReLoRA's merges between cycles: the adapter is merged into the base and re-initialised, and the optimizer states are
pruned.

Lialin et al., "ReLoRA: High-Rank Training Through Low-Rank Updates", arXiv 2307.05695, section 3: W += α/r B A for each
target, A drawn again and B zero, 90 to 99.9 % of the optimizer's states set to zero, the learning rate from 0 again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.errors import InfeasibleError
from graphsim.graph import walk
from graphsim.models.phase import prefill
from graphsim.ops import Elementwise
from graphsim.ops.formats import FORMATS
from graphsim.training.methods import stored_only
from graphsim.training.setup import TrainingSetup
from graphsim.units import Num

WRITABLE = ("nf4", "nf4_dq", "llm_int8")
"""Storage-only formats that PEFT can merge into: bitsandbytes', which are widened, added to
and quantised again (huggingface/peft, src/peft/tuners/lora/bnb.py). Codes of GPTQ and similar formats depend on
calibration data that training lacks."""

SCATTERED = ("zero3", "fsdp1", "fsdp2")
"""Shardings in which no device holds a complete weight. ReLoRA's own code and Axolotl refuse them: Guitaricet/relora,
torchrun_main.py; axolotl, docs/config-reference ("relora … does not work with FSDP/DeepSpeed")."""

ELEMENT_BYTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merge:
    """Seconds of one merge. graphs: of each stage, with the LORA_MERGE nodes.

    merge_s: W += α/r B A of every target, a base in few bits widened, added to and quantised again
    restart_s: A and B initialised again, the optimizer's states read, pruned and written
    """

    graphs: tuple[nx.DiGraph, ...]
    merge_s: Num
    restart_s: Num

    @property
    def total_s(self) -> Num:
        """Seconds from the last step of a cycle to the first of the next."""
        return self.merge_s + self.restart_s


def require_mergeable(setup: TrainingSetup) -> None:
    """Raise InfeasibleError if an adapter cannot be merged into its base between two steps."""
    stored, sharding = stored_only(setup.deployment.precision), setup.sharding
    frozen = [own.name for own in stored if own.name not in WRITABLE]
    if frozen:
        raise InfeasibleError(
            f"method = '{setup.method.name}' merges into its base, but a base in {frozen[0]} cannot be written; "
            f"expected one in 16 or 32 bits, or in {', '.join(WRITABLE)}"
        )
    if sharding in SCATTERED and np.any(np.greater(setup.deployment.parallelism.dp, 1)):
        raise InfeasibleError(
            f"method = '{setup.method.name}' merges into whole weights, but {sharding} leaves none on a device; "
            "expected ddp, zero1 or zero2"
        )
    if setup.deployment.adapter is None:
        raise InfeasibleError(f"method = '{setup.method.name}' has no adapter to merge; give lora")


def merge_of(setup: TrainingSetup, trained: Num, pruned: Num) -> Merge:
    """One merge of the setup's adapter. trained: parameters of it; pruned: part of the states that is set to zero.

    Raises InfeasibleError if the base cannot be written, ConfigError if the adapter's variant cannot be merged.
    """
    require_mergeable(setup)
    deployment = setup.deployment
    lora = deployment.adapter
    merged = replace(deployment, lora=None if lora is None else replace(lora, strategy="merge"), engine=None)
    graphs = tuple(merged.stages(prefill(1.0, 1.0)))
    merge_s: Num = 0.0
    for graph in graphs:  # stages merge side by side
        merge_s = np.maximum(merge_s, _once_s(graph, merged))
    shards = deployment.parallelism.tp * deployment.parallelism.pp
    return Merge(graphs=graphs, merge_s=merge_s, restart_s=_restart_s(setup, trained / shards, pruned))


def _once_s(graph: nx.DiGraph, deployment: Deployment) -> Num:
    price = deployment.price
    total: Num = 0.0
    for _, op, times in walk(graph):
        if op.once:
            total = total + times * price(op, deployment.device).latency_s
    return total


def _restart_s(setup: TrainingSetup, trained: Num, pruned: Num) -> Num:
    """Seconds to write the factors, read the states, and write them if anything is pruned."""
    factors = Elementwise(elems=trained * trained_width(setup) / ELEMENT_BYTES, reads=0.0)
    states = Elementwise(elems=trained * state_width(setup) / ELEMENT_BYTES * np.sign(pruned), reads=1.0)
    price, device = setup.deployment.price, setup.deployment.device
    return price(factors, device).latency_s + price(states, device).latency_s


def trained_width(setup: TrainingSetup) -> float:
    """Bytes of each trained weight: of the adapter's factors, or of a base in 16 bits."""
    lora = setup.deployment.adapter
    return 2.0 if lora is None or setup.method.base else FORMATS[lora.lora_dtype].bytes


def state_width(setup: TrainingSetup) -> float:
    """Bytes of the optimizer's states for each trained weight."""
    wide = setup.recipe.master_weights or trained_width(setup) > ELEMENT_BYTES
    return setup.optimizer.element_bytes(fp32=wide)

"""How a setup's sequences are shared among context-parallel ranks.

Every operation has only a rank's own tokens; attention sees all of them (`graphsim.passes.context`). Weights are the
same on all ranks, so that their gradients are summed over data- and context-parallel ranks together
(`graphsim.training.sharing.groups_of`).
"""

from __future__ import annotations

import numpy as np

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import InfeasibleError
from graphsim.graph import Pass
from graphsim.passes.context import ShareContext
from graphsim.symbolic.questions import is_known
from graphsim.units import Num, short


def context_passes(parallelism: Parallelism) -> tuple[Pass, ...]:
    """The pass after sharding over tensor-parallel devices; none where there is one rank."""
    if np.all(np.less_equal(parallelism.cp, 1)):
        return ()
    return (ShareContext(ways=parallelism.cp, stride=parallelism.tp, exchange=parallelism.cp_comm),)


def own_tokens(seq_len: Num, parallelism: Parallelism) -> Num:
    """A rank's part of a sequence: two of 2c chunks."""
    return seq_len / parallelism.cp


def check_tokens(seq_len: Num, parallelism: Parallelism) -> None:
    """Raise InfeasibleError for sequences that have fewer tokens than chunks."""
    several = np.greater(parallelism.cp, 1)
    short_ones = is_known(seq_len) and np.any(several & np.less(seq_len, 2.0 * np.asarray(parallelism.cp)))
    if short_ones:
        raise InfeasibleError(
            f"parallelism.cp = {short(parallelism.cp)} is not allowed with seq_len = {short(seq_len)}; expected at "
            "least two tokens for each rank"
        )

"""Prompts that hold blocks which others of them wait for: one gives up its own, and all end."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.serving.loop import run
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import FINISHED, STATUSES
from graphsim.traffic.table import request_table
from tests.serving.line_price import LinePrice
from tests.serving.step_by_step import Reference


@pytest.mark.parametrize("shortage", ["retract", "last"])
@pytest.mark.parametrize(("blocks", "piece"), [(14, 6), (14, 7), (18, 4)])
def test_two_prompts_in_pieces_do_not_wait_for_each_other(shortage: str, blocks: int, piece: int) -> None:
    """Two prompts of 8 tokens come in pieces, and 14 blocks of a token hold one of them and most of the other."""
    table = request_table(np.array([0.0, 0.0, 0.001]), np.array([8, 8, 8]), np.array([3, 3, 3]))
    rules = Rules(
        kv_blocks=blocks, block_tokens=1, max_num_batched_tokens=2 * piece, max_num_seqs=4, order="prefill_first",
        long_prefill_token_threshold=piece, admission="blocks", shortage=shortage,
    )  # fmt: skip
    log, reference = run(table, rules, LinePrice()), Reference(table, rules, LinePrice())
    assert (log.status == STATUSES.index(FINISHED)).all() and log.preemptions.any()
    assert log.finished_s == pytest.approx(reference.run().finished_s, abs=1e-9)

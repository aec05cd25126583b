"""Sequence lengths of a run: as stated, as counted in its steps, or those of the longest batch."""

from __future__ import annotations

import re

from graphsim.errors import ConfigError
from graphsim.files.measured import Row
from graphsim.validation.training_cells import number_of, text_of

MEAN = re.compile(r"mean ([\d.]+) tokens/step")
"""Text of a note on batches of varying length."""
PADDED_TO = 4096.0
"""Tokens of fms-hf-tuning's benchmarks of padded sequences, which rows that did not run omit."""
LONGEST_SAMPLE = 2335.0
"""Tokens of the longest sample in its padding-free benchmarks (orca-math): from the memory peaks of Mistral-7B's
QLoRA on one A100 at 4 and 8 sequences padded to the longest; no other rows were used."""
PACKED = {"SQuAD packed": 1100.0}
"""Mean over tokens of their document's length in packed data: Megatron-Bridge's flop_utils.py uses 842,603 as the mean
sum of squares of SQuAD packed to 4,096 tokens with padding, and less than 4,096 as the number of tokens."""


def told_of(row: Row) -> tuple[str, str]:
    """Parts of a case's key that are not columns: counted tokens, and the batch that a figure is for."""
    counted = row.get("tokens_of_step")
    return f"{counted:.0f}" if counted else "", "longest" if _of_longest(row) else ""


def length_of(row: Row, batch: float, sequences: float) -> float:
    """Tokens per sequence, an integer.

    batch: sequences per micro-batch
    sequences: micro-batches per step, on all devices
    Raises ConfigError if the row does not determine it.
    """
    mean, stated, counted = MEAN.search(text_of(row, "note")), text_of(row, "seq_len"), row.get("tokens_of_step")
    if mean and not _of_longest(row):
        return float(round(float(mean[1]) / (batch * sequences)))
    if stated:
        return number_of(row, "seq_len", 0.0)
    if counted:
        each = float(counted) / (batch * sequences)
        if _of_longest(row):
            each = _longest(row, batch, each)
        return max(float(round(each)), 1.0)
    if text_of(row, "recompute").startswith("full (gradient_checkpointing True in defaults"):
        return PADDED_TO
    raise ConfigError("seq_len is not stated, and no count of tokens says what it is")


def squares_of(row: Row, batch: float, seq_len: float) -> float | None:
    """Mean sum of squared document lengths of a micro-batch, if documents of known length are packed."""
    packed = PACKED.get(next((word for word in PACKED if word in text_of(row, "note")), ""))
    return None if packed is None else batch * min(packed * seq_len, seq_len * seq_len)


def _of_longest(row: Row) -> bool:
    """Whether a figure is for the longest batch, as is peak memory if lengths vary."""
    most = str(row["metric"]).startswith("peak") or row["metric"] == "memory_nvidia_smi"
    varies = MEAN.search(text_of(row, "note")) or ("fms" in text_of(row, "framework") and row.get("tokens_of_step"))
    return bool(most and varies)


def _longest(row: Row, batch: float, mean: float) -> float:
    """Tokens per sequence in the longest batch: all padded to the longest, or one such among others of mean length."""
    longest = max(LONGEST_SAMPLE, mean)
    if "padding-free" in text_of(row, "framework"):
        return (longest + (batch - 1.0) * mean) / batch
    return longest

"""How long the sequences of a run are: as stated, as counted in its steps, or as long as the longest batch."""

from __future__ import annotations

import re

from graphsim.errors import ConfigError
from graphsim.files.measured import Row
from graphsim.validation.training_cells import number_of, text_of

MEAN = re.compile(r"mean ([\d.]+) tokens/step")
"""What a note says of batches whose lengths vary."""
PADDED_TO = 4096.0
"""Tokens of fms-hf-tuning's benchmarks of whole sequences, which rows that did not run leave out."""
LONGEST_SAMPLE = 2335.0
"""Of the data of its benchmarks of padding-free batches (orca-math): what the peaks of Mistral-7B's QLoRA on one A100
come to at 4 and at 8 sequences that are padded to the longest; all other rows were left out."""
PACKED = {"SQuAD packed": 1100.0}
"""Mean over tokens of the length of their document, where documents are packed: Megatron-Bridge's flop_utils.py takes
842,603 as the mean sum of squares of SQuAD packed to 4,096 tokens with padding, and less than 4,096 of tokens."""


def told_of(row: Row) -> tuple[str, str]:
    """What tells cases apart beyond a table's columns: tokens that were counted, and which batch a figure is of."""
    counted = row.get("tokens_of_step")
    return f"{counted:.0f}" if counted else "", "longest" if _of_longest(row) else ""


def length_of(row: Row, batch: float, sequences: float) -> float:
    """Tokens of a sequence, a whole number.

    batch: sequences of a micro-batch; sequences: micro-batches of a step, on all devices
    Raises ConfigError where nothing says what it is.
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
    """Mean sum of squared lengths of a micro-batch, where documents of known length are packed."""
    packed = PACKED.get(next((word for word in PACKED if word in text_of(row, "note")), ""))
    return None if packed is None else batch * min(packed * seq_len, seq_len * seq_len)


def _of_longest(row: Row) -> bool:
    """Whether a figure is of the longest batch: the most memory, where lengths vary."""
    most = str(row["metric"]).startswith("peak") or row["metric"] == "memory_nvidia_smi"
    varies = MEAN.search(text_of(row, "note")) or ("fms" in text_of(row, "framework") and row.get("tokens_of_step"))
    return bool(most and varies)


def _longest(row: Row, batch: float, mean: float) -> float:
    """Tokens of a sequence in the longest batch: padded to the longest, or one such beside others of mean length."""
    longest = max(LONGEST_SAMPLE, mean)
    if "padding-free" in text_of(row, "framework"):
        return (longest + (batch - 1.0) * mean) / batch
    return longest

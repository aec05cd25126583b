"""A row of a table of training runs as arguments of `graphsim.training.train`.

Rows of equal settings are one case, which is simulated once. Degrees that a row omits follow from the others, or
the row states what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.files.measured import Row
from graphsim.hardware import Hardware
from graphsim.lora.config import LoraConfig
from graphsim.models.config import ModelConfig
from graphsim.units import amount_text
from graphsim.validation.training_cells import number_of, text_of
from graphsim.validation.training_devices import device_of
from graphsim.validation.training_lengths import length_of, squares_of, told_of
from graphsim.validation.training_models import arguments_of, model_of
from graphsim.validation.training_settings import (
    Recomputed,
    Shared,
    lora_of,
    method_of,
    precision_of,
    recipe_of,
    recomputed_of,
    sharing_of,
)  # fmt: skip
from graphsim.validation.training_sources import accumulated_of
from graphsim.validation.training_variations import changes_of

SETTINGS = (
    "hardware", "num_devices", "framework", "model", "method", "rank", "targets", "precision", "seq_len", "micro_batch",
    "grad_accum", "global_batch", "tp", "pp", "vpp", "cp", "ep", "dp", "shard", "recompute", "note",
)  # fmt: skip
"""Columns that define a case."""
NODE = 8
"""Default number of devices of a Megatron-LM test: a node."""
SEQUENCE_PARALLEL = ("megatron-bridge", "torchtitan", "nemo-automodel")
"""Recipes that use sequence parallelism with tensor parallelism, unless a row states otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingCase:
    """The training run of a row.

    recipe: name of the recipe
    changes: fields of the recipe that the row overrides
    batch: sequences of a micro-batch on one data-parallel rank
    seq_len: tokens per sequence
    squares: mean sum of squared lengths of the documents in a micro-batch
    method: name in `graphsim.training.methods`
    part: part of the step that a row's time covers
    last_stage: whether memory is that of the pipeline's last stage, whose rank writes Megatron-LM's log
    """

    model: ModelConfig
    hardware: Hardware
    devices: int
    recipe: str
    method: str
    lora: LoraConfig | None
    precision: str | None
    parallelism: Parallelism
    batch: float
    seq_len: float
    accumulate: float
    part: float = 1.0
    shared: Shared
    recomputed: Recomputed
    squares: float | None = None
    last_stage: bool = False
    offload: tuple[str, ...] = ()
    optimizer: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> float:
        """Tokens of one step on all devices."""
        replicas = self.devices / (
            float(self.parallelism.tp) * self.parallelism.pp * float(_of(self.parallelism, "cp"))
        )
        return self.batch * self.seq_len * self.accumulate * replicas

    @property
    def samples(self) -> float:
        """Sequences of one step, on all devices."""
        return self.tokens / self.seq_len


def key_of(row: Row) -> tuple[str, ...]:
    """The key of a row's case."""
    return (*(_settled(name, row) for name in SETTINGS), *told_of(row), str(accumulated_of(row)))


def _settled(name: str, row: Row) -> str:
    text = text_of(row, name)
    return _plain_note(text) if name == "note" else text


def _plain_note(note: str) -> str:
    """A note without remarks on single figures, so that all figures of a run have the same key."""
    cut = re.sub(r"\s*= GBS\*seq/\(tokens/s/GPU\*GPUs\)", "", note)
    cut = re.sub(r"[;,]?\s*MFU = .*$", "", cut)
    cut = re.sub(r";\s*(?:\(block_stop.*|logged .*|one evaluation pass|mean of \d+ successful.*)$", "", cut)
    return cut.strip("; ")


def case_of(row: Row) -> TrainingCase:
    """The case of a row. Raises ConfigError with what is missing or cannot be parsed."""
    note, framework = text_of(row, "note"), text_of(row, "framework")
    method = method_of(text_of(row, "method"), note)
    hardware, told = device_of(text_of(row, "hardware"))
    recipe = _recipe(row, framework)
    tp, pp, cp, ep = (_degree(row, name, framework) for name in ("tp", "pp", "cp", "ep"))
    devices = int(number_of(row, "num_devices", float(told if told > 1 else _node(row, framework))))
    dp = _replicas(row, devices, tp * pp * cp)
    batch, accumulate = _batches(row, dp)
    seq_len = length_of(row, batch, accumulate * dp)
    model = model_of(text_of(row, "model"), framework, note, seq_len, tp)
    shared, recomputed = sharing_of(text_of(row, "shard")), recomputed_of(text_of(row, "recompute"))
    more, further = changes_of(row, recipe), accumulated_of(row)
    return TrainingCase(
        model=model, hardware=hardware, devices=devices, recipe=more.recipe or recipe,
        method=method,
        lora=lora_of(recipe, method, text_of(row, "rank"), _targets(row, model), note),
        precision=precision_of(text_of(row, "precision"), note, recipe),
        batch=batch, seq_len=seq_len, accumulate=accumulate * further, part=1.0 / further,
        parallelism=_parallelism(row, model, recipe, Degrees(tp=tp, pp=pp, cp=cp, ep=ep, dp=dp, group=shared.group)),
        shared=shared, recomputed=recomputed, squares=squares_of(row, batch, seq_len), optimizer=more.optimizer,
        changes={**recomputed.changes, **more.changes}, last_stage=pp > 1 and framework.startswith("Megatron-LM (CI"),
        offload=(*shared.offload, *recomputed.offload, *more.offload),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """Degrees of parallelism as stated by rows."""

    tp: int
    pp: int
    cp: int
    ep: int
    dp: int
    group: int


def _targets(row: Row, model: ModelConfig) -> str:
    """Targets in PEFT's form: from a list for several families, those that the model has."""
    listed = text_of(row, "targets").split("+")
    fused = [name for name in listed if name in FUSED]
    if not fused or len(fused) == len(listed):
        return "+".join(listed)
    return "+".join(fused if model.model_type in FUSED_FAMILIES else [name for name in listed if name not in FUSED])


FUSED, FUSED_FAMILIES = ("c_attn", "query_key_value"), ("gpt_bigcode", "gpt2", "gpt_neox", "bloom", "falcon")
"""Names of projections that are fused in the checkpoint, and the families that have them."""


def _recipe(row: Row, framework: str) -> str:
    if str(row.get("source", "")).startswith("MLPerf Training"):
        return "mlperf"
    return recipe_of(framework)


def _node(row: Row, framework: str) -> int:
    """Number of devices if a row states none: a node for Megatron-LM's tests, otherwise one."""
    if "ci golden values" not in framework.lower():
        return 1
    if not text_of(row, "global_batch"):
        raise ConfigError("num_devices is not stated, and no global batch says how many replicas there are")
    return NODE


def _degree(row: Row, name: str, framework: str) -> int:
    """A degree; 1 if a row omits it and its layout is known otherwise."""
    value = text_of(row, name)
    if value:
        return int(number_of(row, name, 1.0))
    if name in ("cp", "ep") or int(number_of(row, "num_devices", 1.0)) == 1 or text_of(row, "shard"):
        return 1
    if "DGX" in text_of(row, "hardware") and name == "ep":
        return 1
    raise ConfigError(f"{name} is not stated, and nothing says what it follows from")


def _replicas(row: Row, devices: int, ways: int) -> int:
    if devices % ways:
        raise ConfigError(f"num_devices = {devices} is not a multiple of tp * pp * cp = {ways}")
    told = int(number_of(row, "dp", 0.0))
    found = devices // ways
    if told and told not in (found, devices):
        raise ConfigError(f"dp = {told} contradicts num_devices = {devices} with tp * pp * cp = {ways}")
    return found


def _batches(row: Row, dp: int) -> tuple[float, float]:
    """Sequences per micro-batch and micro-batches per step, on each data-parallel rank."""
    batch, accumulate, whole = (number_of(row, name, 0.0) for name in ("micro_batch", "grad_accum", "global_batch"))
    if whole and dp:
        share = whole / dp
        if not batch:
            batch = share / accumulate if accumulate and share % accumulate == 0 else 1.0
        if share < 1 or share % batch:
            raise ConfigError(
                f"global_batch = {amount_text(whole)} is not a multiple of micro_batch = {amount_text(batch)} times "
                f"dp = {dp}"
            )
        return batch, share / batch
    if not batch:
        raise ConfigError("micro_batch is not stated, and nothing says what it follows from")
    return batch, max(accumulate, 1.0)


def _parallelism(row: Row, model: ModelConfig, recipe: str, degrees: Degrees) -> Parallelism:
    virtual = _virtual(text_of(row, "vpp"), model, degrees.pp)
    tp = degrees.tp
    told = f"{text_of(row, 'note')} {text_of(row, 'recompute')}".lower()
    sequence = recipe in SEQUENCE_PARALLEL or recipe == "mlperf" or _case_of_simulator(told)
    stated = re.search(r"\bsp=(\w+)", told) or re.search(r"sequence-parallel=(\w+)", told)
    if stated:
        sequence = stated[1] in ("1", "true")
    elif "sequence parallel" in told and "ulysses" not in told:
        sequence = True
    more: dict[str, Any] = {"cp": degrees.cp} if degrees.cp > 1 else {}
    if virtual > 1:
        more |= {"schedule": "interleaved", "virtual_stages": virtual}
    group = degrees.group or (degrees.dp // 2 if "multi_dist_optimizer_instances" in text_of(row, "model") else 0)
    if group and group < degrees.dp:
        more["shard_group"] = group
    try:
        return Parallelism(
            tp=tp, pp=degrees.pp, ep=max(degrees.ep, 1), dp=_outside(degrees), sp=tp if sequence else 1, **more
        )
    except TypeError:
        raise ConfigError(f"context parallelism and virtual stages are not simulated ({', '.join(more)})") from None


def _outside(degrees: Degrees) -> int:
    """Data-parallel replicas outside expert parallelism: ep / tp replicas share a set of experts."""
    shared = max(degrees.ep // degrees.tp, 1)
    return max(degrees.dp // shared, 1)


def _case_of_simulator(told: str) -> bool:
    return told.startswith("case ")


def _virtual(text: str, model: ModelConfig, pp: int) -> int:
    each = re.fullmatch(r"layers/vstage=(\d+)", text)
    if each:
        return max(model.num_layers // (pp * int(each[1])), 1)
    return int(float(text)) if text and text.replace(".", "").isdigit() and pp > 1 else 1


def _of(parallelism: Parallelism, name: str) -> float:
    return float(getattr(parallelism, name, 1))


__all__ = ["SETTINGS", "TrainingCase", "arguments_of", "case_of", "key_of"]

"""Liger's benchmark of single kernels compared with the estimate: time and memory by implementation and direction.

The kernel is defined by the columns `kernel`, `provider`, `mode`, `x_name`, `x_value` and `config`; see
`graphsim.training.lone_kernels` for how it is priced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.files.measured import Row
from graphsim.hardware import Hardware
from graphsim.ops.formats import FORMATS
from graphsim.training import lone_losses as losses
from graphsim.training import lone_norms as norms
from graphsim.training.lone_kernels import Lone, lone_s
from graphsim.validation.judged import judged_line
from graphsim.validation.training_devices import device_of

COLUMNS = ("kernel", "provider", "mode", "metric", "x_name", "x_value", "value", "unit", "config")
"""Columns that identify the layout."""
UNITS = {"ms": 1e-3, "us": 1e-6, "s": 1.0, "MB": 2.0**20, "MiB": 2.0**20, "GB": 2.0**30, "B": 1.0}
"""Units in seconds or bytes; the benchmark's MB is binary."""
FORMAT_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16", "float": "fp32"}


def liger_lines(row: Row) -> dict[str, Any]:
    """The row's figure and the estimate, in the row's unit."""
    predicted, problem = float("nan"), ""
    try:
        predicted = _predicted(row)
    except ConfigError as error:
        problem = str(error)
    metric = str(row["metric"])
    line = judged_line(row["id"], metric, row["value"], predicted, problem)
    shown = {name: str(row.get(name, "")) for name in ("kernel", "provider", "mode", "hardware")}
    return line | shown | {"quantity": "memory" if metric == "memory" else "time", "case": shown["kernel"]}


def _predicted(row: Row) -> float:
    if str(row["unit"]) not in UNITS:
        raise ConfigError(f"unit = {row['unit']!r} is not known; {choices_text(str(row['unit']), list(UNITS))}")
    unit = UNITS[str(row["unit"])]
    lone, mode = lone_of(row), str(row["mode"])
    if row["metric"] == "memory":
        if mode not in lone.peak_bytes:
            raise ConfigError(f"memory of {row['kernel']} in the mode {mode} alone has no rule")
        return float(lone.peak_bytes[mode]) / unit
    if row["metric"] != "speed":
        raise ConfigError("not simulated")
    if mode not in ("forward", "backward", "full"):
        raise ConfigError(f"mode = {mode!r} is not known; allowed: forward, backward, full")
    device: Hardware = device_of(str(row["hardware"]))[0]
    return lone_s(lone, mode, device) / unit


def lone_of(row: Row) -> Lone:
    """The operation of a row. Raises ConfigError for a kernel without a rule, and for missing sizes."""
    name = str(row["kernel"])
    if name not in KERNELS:
        raise ConfigError(f"the kernel {name} has no rule; {choices_text(name, list(KERNELS))}")
    sizes = _Sizes(_config(row), str(row["provider"]))
    return KERNELS[name](sizes)


class _Sizes:
    """The sizes of a row, under any of their names in the versions of the benchmark."""

    def __init__(self, given: Mapping[str, Any], provider: str) -> None:
        self.given, self.provider = given, provider

    def __call__(self, *names: str) -> float:
        for name in names:
            if name in self.given:
                try:
                    return float(self.given[name])
                except (TypeError, ValueError):
                    raise ConfigError(f"config: {name} = {self.given[name]!r} is not a number") from None
        raise ConfigError(f"config: none of {', '.join(names)} is given; there are {', '.join(self.given)}")

    @property
    def tokens(self) -> float:
        """Number of rows of the logits or of the values."""
        if "BT" in self.given or "M" in self.given:
            return self("BT", "M")
        return self("B", "bsz", "batch_size") * self("T", "seq_len") if {"B", "bsz"} & set(self.given) else self("T")

    @property
    def format(self) -> str:
        """The values' number format; fp32 by default."""
        name = str(self.given.get("dtype", "float32")).removeprefix("torch.")
        return FORMAT_NAMES.get(name, name)

    @property
    def bytes(self) -> float:
        """Bytes of one value."""
        if self.format not in FORMATS:
            raise ConfigError(
                f"config: dtype = {self.given['dtype']!r} is not known; allowed: {', '.join(FORMAT_NAMES)}"
            )
        return float(FORMATS[self.format].bytes)


def _config(row: Row) -> dict[str, Any]:
    """The settings, including the row's own size; for a sweep over models, those of the row's model."""
    text = row.get("config")
    try:
        given = json.loads(text) if isinstance(text, str) and text else {}
    except json.JSONDecodeError:
        raise ConfigError(f"config = {text!r} is not JSON") from None
    if not isinstance(given, dict):
        raise ConfigError(f"config = {text!r} is not a mapping")
    models = given.pop("model_configs", {})
    chosen = models.get(str(row["x_value"]), {}) if isinstance(models, dict) else {}
    return given | chosen | {str(row["x_name"]): row["x_value"]}


WIDTH = ("H", "N", "hidden_size", "hidden_dim")
VOCAB = ("V", "vocab_size")
INNER = ("intermediate_size", "I", "F")
Rule = Callable[[_Sizes], Lone]


def _rows(rule: Callable[..., Lone], s: _Sizes) -> Lone:
    width = s("N", "H", "hidden_size") if "M" in s.given else s("hidden_size", "H", "N")
    return rule(s.tokens, width, s.bytes, s.provider)


def _logits(rule: Callable[..., Lone], s: _Sizes) -> Lone:
    return rule(s.tokens, s(*VOCAB), s.bytes, s.provider)


def _head(rule: Callable[..., Lone], s: _Sizes) -> Lone:
    return rule(s.tokens, s(*WIDTH), s(*VOCAB), s.format, s.bytes, s.provider)


def _mlp(s: _Sizes) -> Lone:
    return losses.gated_mlp(s.tokens, s(*WIDTH), s(*INNER), s.format, s.bytes, s.provider)


def _rope(s: _Sizes) -> Lone:
    heads, width = s("num_q_heads", "num_heads"), s("hidden_size", "H")
    return norms.rope(s("seq_len", "T"), heads, s("num_kv_heads"), width / heads, s.bytes, s.provider)


def _embedding(s: _Sizes) -> Lone:
    return losses.embedding(s.tokens, s("D", "hidden_size", "H"), s(*VOCAB), s.bytes, s.provider)


def _group_norm(s: _Sizes) -> Lone:
    channels = s("num_channels", "C")
    return norms.group_norm(s("M", "batch_size"), channels, s("H", "hidden_size"), s.bytes, s.provider)


KERNELS: Mapping[str, Rule] = {
    "rms_norm": partial(_rows, norms.rms_norm), "layer_norm": partial(_rows, norms.layer_norm),
    "fused_add_rms_norm": partial(_rows, norms.fused_add_rms_norm), "dyt": partial(_rows, norms.dyt),
    "relu_squared": partial(_rows, norms.relu_squared), "softmax": partial(_rows, norms.softmax),
    "group_norm": _group_norm, "rope": _rope, "qwen2vl_mrope": _rope, "llama4_rope": _rope,
    "cross_entropy": partial(_logits, losses.cross_entropy), "kl_div": partial(_logits, losses.kl_div),
    "jsd": partial(_logits, losses.jsd), "tvd": partial(_logits, losses.tvd),
    "fused_linear_cross_entropy": partial(_head, losses.fused_linear_cross_entropy),
    "fused_linear_jsd": partial(_head, losses.fused_linear_jsd), "swiglu": _mlp, "geglu": _mlp,
    "embedding": _embedding,
}  # fmt: skip
"""The operation of each kernel's row."""
